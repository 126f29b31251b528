"""Where configuration is read and written: the root file system of this machine, or of an image that is being built."""

import errno
import os
import stat
from pathlib import Path

from pullonce.runtimes.files import FilesRefused
from pullonce.runtimes.trouble import ConfigInvalid

MOST = 8 << 20
"""Bytes of a file of configuration, at most."""

_LINKS = 40
"""Links that are followed on one path. Source: path_resolution(7)."""


class RootTree:
    """The files below a root directory, links taken as they are within it.

    Args:
        root: `/`, or where the root file system of another machine lies.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))

    def __str__(self) -> str:
        return str(self.root)

    @property
    def is_this_machine(self) -> bool:
        return self.root == Path("/")

    def place(self, path: str) -> Path:
        """Where a path leads to, all links followed, those that are absolute too; what is missing is where it would be made.

        Raises:
            FilesRefused: links go round in circles, or a file stands where a directory should.
        """
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        found: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                found = found[:-1]
                continue
            here = self.root.joinpath(*found, part)
            try:
                is_link = stat.S_ISLNK(here.lstat().st_mode)
            except FileNotFoundError:
                is_link = False
            except OSError as exc:
                raise FilesRefused(f"{path} cannot be reached: {exc.strerror}") from exc
            if not is_link:
                found.append(part)
                continue
            links += 1
            if links > _LINKS:
                raise FilesRefused(f"{path} cannot be reached: {os.strerror(errno.ELOOP)}")
            target = str(here.readlink())
            if target.startswith("/"):
                found = []
            todo += [each for each in reversed(target.split("/")) if each not in ("", ".")]
        return self.root.joinpath(*found)

    def read(self, path: str) -> str | None:
        """As `Files.read`."""
        place = self.place(path)
        try:
            found = place.stat()
            if not stat.S_ISREG(found.st_mode):
                raise FilesRefused(f"{path} is no file")
            if found.st_size > MOST:
                raise FilesRefused(f"{path} has {found.st_size} bytes; no configuration has more than {MOST}")
            return place.read_bytes().decode()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as exc:
            line = exc.object.count(b"\n", 0, exc.start) + 1
            raise ConfigInvalid("this is no text in UTF-8", path=path, line=line) from None
        except OSError as exc:
            raise FilesRefused(f"{path} cannot be read: {exc.strerror}") from exc

    def names(self, directory: str) -> list[str]:
        """As `Files.names`."""
        try:
            return sorted(each.name for each in self.place(directory).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            raise FilesRefused(f"{directory} cannot be read: {exc.strerror}") from exc
