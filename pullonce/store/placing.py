"""Snapshots put in place and taken out: the tree below `l/`, and the directory below `snapshots/` that makes it count.

    in    the tree first, then the directory: the snapshot is there from the second rename on
    out   the directory first, then the tree: it is gone from the first rename on

So a crash between the two leaves a tree that belongs to nobody, and never a snapshot without its tree. Of several that put one
in, the kernel lets one come first, and none holds a lock: one that stands still between its renames keeps nobody waiting.
What takes more than these two (something is in the way, is taken out, or belongs to nobody) is done one at a time, under a
lock on `l/` itself.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from pullonce.errors import Retryable
from pullonce.failpoints import reach
from pullonce.oci.digest import is_digest
from pullonce.store.disk import exchange, locked
from pullonce.store.layout import EMPTY_TREE, RECORD, UNSYNCED, Layout, link_to_tree, short_name
from pullonce.store.snapshots import boot_id
from pullonce.store.trees import is_abandoned
from schemas.oci import ChainID

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
"""What rename(2) says to a directory whose new name another one has, or a link."""
_PRIVATE = 0o700
"""Mode of `l/`. No user but ours looks into a tree by its path: a layer's set-id programs are not for them."""


def _hold(layout: Layout) -> AbstractContextManager[None]:
    return locked(layout.trees)


def put_in(layout: Layout, chain_id: ChainID, draft: Path, *, there: Callable[[], bool], replaced: Sequence[Path]) -> bool:
    """Make a finished snapshot visible; False where another is there already.

    Args:
        draft: a directory two levels below `staging/`, with all that belongs into `snapshots/<chain>`, and the tree as `fs`.
        there: whether a snapshot counts that is in place.
        replaced: two fresh paths, for a snapshot in its place that does not count, and for a tree that belongs to nobody.

    Raises:
        OSError: the disk refuses.
        Retryable: it was taken out again before it was whole.
    """
    if there():
        return False
    if os.path.lexists(layout.snapshot(chain_id)) or not _placed(layout, chain_id, draft):
        with _hold(layout):
            if _is_decided(layout, chain_id, draft, there, replaced):
                return False
    reach("snapshot.placed")
    (draft / "fs").symlink_to(link_to_tree(chain_id))
    try:
        draft.rename(layout.snapshot(chain_id))
    except OSError as exc:
        if exc.errno in _TAKEN:  # somebody was first, with our tree or with its own
            return False
        raise
    reach("snapshot.renamed")
    if not layout.tree(chain_id).exists():
        _check_tree(layout, chain_id, replaced[0])
    return True


def _placed(layout: Layout, chain_id: ChainID, draft: Path) -> bool:
    """Give a draft's tree its place; False where something is there."""
    place = layout.tree(chain_id)
    if os.path.lexists(place):
        return False
    try:
        _move(draft / "fs", place)
    except OSError as exc:
        if exc.errno in _TAKEN:
            return False
        raise
    return True


def _is_decided(layout: Layout, chain_id: ChainID, draft: Path, there: Callable[[], bool], replaced: Sequence[Path]) -> bool:
    """Clear the way and have a tree in its place. True: another one has made the snapshot meanwhile. Under the lock.

    The tree of somebody who lives and stands between his two renames is finished and as good as ours: it stays, since he may
    go on at any moment. What a dead process left may have lost content in a power cut: it makes room.
    """
    if os.path.lexists(layout.snapshot(chain_id)):
        if there():
            return True
        _move_out(layout, chain_id, replaced[0])
    place = layout.tree(chain_id)
    if os.path.lexists(place):
        if short_name(chain_id) in _between(layout) and _same_root(place, draft / "fs"):
            _move(draft / "fs", replaced[1])
            return False
        _move(place, replaced[1])
    _move(draft / "fs", place)
    return False


def _same_root(one: Path, other: Path) -> bool:
    """Whether the roots of two trees have one mode: that of a tree which was just moved may be about to be set back."""
    return one.lstat().st_mode == other.lstat().st_mode


def _check_tree(layout: Layout, chain_id: ChainID, target: Path) -> None:
    """A snapshot of ours has no tree: somebody took it away, the snapshot included, while we stood still. Ours must go, too."""
    with _hold(layout):
        if layout.tree(chain_id).exists():
            return
        _move_out(layout, chain_id, target)
    raise Retryable(f"{chain_id} was removed while it was put in its place", code="unpack.failed", concerns="key")


def _between(layout: Layout) -> set[str]:
    """Short names of the trees whose makers live and stand between their two renames: the record is in `staging/` still."""
    found = set()
    for process in _below(layout.staging):
        if not process.is_dir() or is_abandoned(process):
            continue
        for record in (draft / RECORD for task in _below(process) for draft in _below(task)):
            tree = record.with_name("fs")
            try:
                if (tree.is_symlink() or not tree.exists()) and _is_of_this_boot(record):
                    found.add(short_name(msgspec.json.decode(record.read_bytes())["chain_id"]))
            except (FileNotFoundError, NotADirectoryError):
                continue  # it is in its place by now
    return found


def _below(directory: Path) -> list[Path]:
    """What lies in a directory; nothing where it has gone meanwhile, so that what lies beside it is looked at all the same."""
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_of_this_boot(record: Path) -> bool:
    """Whether a power cut can have lost nothing of what a draft has written: its process may only seem to live."""
    try:
        return record.with_name(UNSYNCED).read_text() == boot_id()
    except FileNotFoundError:
        return True


def take_out(layout: Layout, chain_id: ChainID, target: Path) -> bool:
    """Move a snapshot to a path on the same file system, its tree as `fs` in it; False where it was not there.

    Raises:
        OSError: the disk refuses.
    """
    with _hold(layout):
        return _move_out(layout, chain_id, target)


def _move_out(layout: Layout, chain_id: ChainID, target: Path) -> bool:
    try:
        layout.snapshot(chain_id).rename(target)
    except FileNotFoundError:
        return False
    tree = layout.tree(chain_id)
    if tree.is_symlink():  # of an earlier version: the tree itself went along
        tree.unlink()
    elif tree.is_dir():
        (target / "fs").unlink(missing_ok=True)
        _move(tree, target / "fs")
    return True


def _move(tree: Path, target: Path) -> None:
    with _movable(tree):
        tree.rename(target)


@contextmanager
def _movable(tree: Path) -> Iterator[None]:
    """Let its owner move a directory that may not be written: whoever is not root may not even change its `..` (rename(2)).

    Roots of mode 0555 are common. Its mode is back at the end of the block, wherever it is then.
    """
    fd = os.open(tree, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        if os.geteuid() == 0 or mode & stat.S_IWUSR:
            yield
            return
        itself = Path(f"/proc/self/fd/{fd}")
        itself.chmod(mode | stat.S_IWUSR)
        try:
            yield
        finally:
            itself.chmod(mode)
    finally:
        os.close(fd)


def strays(layout: Layout) -> list[str]:
    """Short names below `l/` that no snapshot has: what a crash between two renames left."""
    with _hold(layout):
        known = _owned(layout)
        return sorted(path.name for path in layout.trees.iterdir() if path.name not in known and path.name != EMPTY_TREE)


def _owned(layout: Layout) -> set[str]:
    """Short names of the trees that belong to somebody. In this order: a record goes from those between to the snapshots."""
    return _between(layout) | {short_name(each) for each in all_of(layout)}


def take_out_stray(layout: Layout, name: str, target: Path) -> bool:
    """Move such a tree away; False where it belongs to somebody by now, or is gone."""
    with _hold(layout):
        if name in _owned(layout):
            return False
        try:
            _move(layout.trees / name, target)
        except FileNotFoundError:
            return False
        return True


def all_of(layout: Layout) -> list[ChainID]:
    """The ChainIDs of all snapshots, doubtful and damaged ones included, sorted."""
    try:
        names = [path.name for path in layout.snapshots.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(ChainID(name.replace("-", ":", 1)) for name in names if _is_chain(name))


def _is_chain(name: str) -> bool:
    return is_digest(name.replace("-", ":", 1))


# -- stores of earlier versions ------------------------------------------------------------------------------------------


def take_over(layout: Layout) -> int:
    """Give the trees of an earlier version their short names; returns how many had another. Repeating it is harmless.

    It may be killed anywhere and begun again: `l/<20>` leads to the tree at every moment, by one name or the other, and what is
    mounted stays mounted, since a mount holds on to directories and not to names.

    Raises:
        OSError: the disk refuses.
    """
    with _hold(layout):
        if layout.trees.stat().st_mode & 0o777 != _PRIVATE:
            layout.trees.chmod(_PRIVATE)  # what was a link before is a tree now
        return sum(_turn_round(layout, each) for each in all_of(layout))


def _turn_round(layout: Layout, chain_id: ChainID) -> bool:
    link, tree = layout.link(chain_id), layout.tree(chain_id)
    real = link.is_dir() and not link.is_symlink()
    if real:
        with _movable(link):
            if not (tree.is_symlink() and exchange(tree, link)):
                tree.unlink(missing_ok=True)
                reach("store.unlinked")
                link.rename(tree)
        reach("store.exchanged")
    wanted = link_to_tree(chain_id)
    if tree.is_dir() and not tree.is_symlink() and not (link.is_symlink() and link.readlink() == wanted):
        draft = link.with_name(f".fs.{secrets.token_hex(4)}")
        draft.symlink_to(wanted)
        draft.replace(link)
    return real
