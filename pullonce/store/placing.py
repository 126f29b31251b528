"""Snapshots put in place and taken out: the tree below `l/`, and the directory below `snapshots/` that makes it count.

    in    the tree first, then the directory: the snapshot is there from the second rename on
    out   the directory first, then the tree: it is gone from the first rename on

So a crash between the two leaves a tree that belongs to nobody, and never a snapshot without its tree. One lock, on `l/`
itself, keeps those who do this for one ChainID apart.
"""

import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pullonce.failpoints import reach
from pullonce.oci.digest import is_digest
from pullonce.store.disk import exchange, locked
from pullonce.store.layout import EMPTY_TREE, Layout, link_to_tree, short_name
from schemas.oci import ChainID

_PRIVATE = 0o700
"""Mode of `l/`. No user but ours looks into a tree by its path: a layer's set-id programs are not for them."""


def _hold(layout: Layout) -> AbstractContextManager[None]:
    return locked(layout.trees)


def put_in(layout: Layout, chain_id: ChainID, draft: Path, *, there: Callable[[], bool], replaced: Sequence[Path]) -> bool:
    """Make a finished snapshot visible; False where another is there already.

    Args:
        draft: a directory on the same file system with all that belongs into `snapshots/<chain>`, and the tree as `fs`.
        there: whether a snapshot counts that is in place.
        replaced: two fresh paths, for a snapshot in its place that does not count, and for a tree that belongs to nobody.

    Raises:
        OSError: the disk refuses.
    """
    with _hold(layout):
        if there():
            return False
        _move_out(layout, chain_id, replaced[0])
        if os.path.lexists(layout.tree(chain_id)):  # of a process that died between the two renames
            _move(layout.tree(chain_id), replaced[1])
        _move(draft / "fs", layout.tree(chain_id))
        reach("snapshot.placed")
        (draft / "fs").symlink_to(link_to_tree(chain_id))
        draft.rename(layout.snapshot(chain_id))
        reach("snapshot.renamed")
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
        known = {short_name(each) for each in all_of(layout)}
        return sorted(path.name for path in layout.trees.iterdir() if path.name not in known and path.name != EMPTY_TREE)


def take_out_stray(layout: Layout, name: str, target: Path) -> bool:
    """Move such a tree away; False where a snapshot has it by now, or it is gone."""
    with _hold(layout):
        if name in {short_name(each) for each in all_of(layout)}:
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
