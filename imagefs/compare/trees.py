"""The differences of two trees, in the order in which ``diff -r`` comes to them.

Receives two sides; hands on one `Change` after the other.  What is equal is skipped by its digest, so comparing costs
what differs: a directory equal with all that is in it is one comparison, and so is a file that is the same entry of
the same layer.
"""

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from imagefs.layer.changeset import Entry
from imagefs.view.tree import ImageTree, Thing

ASPECTS = ("type", "content", "target", "device", "mode", "owner", "times", "xattrs")
"""What may differ, in the order in which it is told."""

Kind = Literal["A", "D", "C"]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: *path* (clean, b"" is the root) was added, deleted, or changed in *aspects* (of ASPECTS).

    *old* is None for what was added, *new* for what was deleted.
    """

    kind: Kind
    path: bytes
    aspects: tuple[str, ...]
    old: Thing | None
    new: Thing | None

    @property
    def bytes_before(self) -> int:
        """How long the file was, 0 where there was none."""
        return _content_bytes(self.old)

    @property
    def bytes_after(self) -> int:
        """How long the file is, 0 where there is none."""
        return _content_bytes(self.new)


def compare(
    old: ImageTree,
    new: ImageTree,
    *,
    at: tuple[bytes, Thing | None, Thing | None] | None = None,
    ignore: Collection[str] = (),
) -> Iterator[Change]:
    """Yield what makes *new* another tree than *old*, leaving out what differs only in *ignore*, of ASPECTS.

    A directory comes before what is in it, names in byte order.  *at* limits it to what is at that path on the two
    sides; None where there is nothing.

    Raises, while iterating: BlobNotFound, InvalidLayer.
    """
    path, before, after = at or (b"", old.root(), new.root())
    # An explicit stack: a layer may nest directories deeper than Python likes to recurse.
    stack = [iter([(path, before, after)])]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
            continue
        path, before, after = found
        if before is None or after is None:
            yield Change("D" if after is None else "A", path, (), before, after)
        else:
            if _same(old, before, new, after):
                continue
            found_aspects = differing(old.entry(before), new.entry(after), are_same=before.place == after.place)
            aspects = tuple(aspect for aspect in found_aspects if aspect not in ignore)
            if aspects:
                yield Change("C", path, aspects, before, after)
        directories = [thing if thing is not None and thing.is_directory else None for thing in (before, after)]
        if any(directories):
            stack.append(_children(path, old, directories[0], new, directories[1]))


def _same(old: ImageTree, before: Thing, new: ImageTree, after: Thing) -> bool:
    if before.is_directory and after.is_directory:
        return old.digest(before.index) == new.digest(after.index)
    return before.place is not None and before.place == after.place


def _children(
    path: bytes, old: ImageTree, before: Thing | None, new: ImageTree, after: Thing | None
) -> Iterator[tuple[bytes, Thing | None, Thing | None]]:
    """Yield (path, thing before, thing after) of every name in one of two directories, in byte order.

    Names that are the same on both sides, nearly all as a rule, are left out without a closer look.
    """
    prefix = path + b"/" if path else b""
    befores, afters = old.listing(before) if before else None, new.listing(after) if after else None
    nodes_before, nodes_after = befores.nodes() if befores else {}, afters.nodes() if afters else {}
    same_layers = new.counterparts(old)
    for name in sorted(nodes_before.keys() | nodes_after.keys()):
        first, second = nodes_before.get(name), nodes_after.get(name)
        if first is not None and second is not None:
            (owner, index, _), (other_owner, other_index, _) = first, second
            if owner == other_owner == 0:
                if old.digest(index) == new.digest(other_index):
                    continue
            elif index == other_index and same_layers.get(owner) == other_owner:
                continue
        yield (
            prefix + name,
            old.thing(befores, first[2]) if befores and first else None,
            new.thing(afters, second[2]) if afters and second else None,
        )


def differing(one: Entry, other: Entry, *, are_same: bool = False) -> Iterator[str]:
    """Yield the aspects in which two entries, no hard links, differ, in the order of ASPECTS.

    Content is compared by digest and never read.  Files whose holes were too big to be hashed hold the same only if
    they *are_same*: one entry of one layer.
    """
    if stat.S_IFMT(one.mode) != stat.S_IFMT(other.mode):
        yield "type"
    else:
        has_digest = one.sha256 != b"" != other.sha256
        is_equal = are_same or (one.size == other.size and has_digest and one.sha256 == other.sha256)
        if stat.S_ISREG(one.mode) and not is_equal:
            yield "content"
        if one.target != other.target:
            yield "target"
        if one.rdev != other.rdev:
            yield "device"
    if stat.S_IMODE(one.mode) != stat.S_IMODE(other.mode):
        yield "mode"
    if (one.uid, one.gid) != (other.uid, other.gid):
        yield "owner"
    if one.mtime_ns != other.mtime_ns:
        yield "times"
    if one.xattrs != other.xattrs:
        yield "xattrs"


def _content_bytes(thing: Thing | None) -> int:
    return thing.attributes.size if thing is not None and stat.S_ISREG(thing.attributes.mode) else 0


def described(side: ImageTree, thing: Thing) -> dict[str, object]:
    """Return everything known of *thing* as JSON has it; bytes that are not UTF-8 are shown as U+FFFD."""
    shown = thing.attributes
    entry = side.entry(thing)
    result: dict[str, object] = {
        "type": TYPES[stat.S_IFMT(shown.mode)],
        "mode": f"{stat.S_IMODE(shown.mode):04o}",
        "uid": shown.uid,
        "gid": shown.gid,
        "mtime_ns": shown.mtime_ns,
    }
    if stat.S_ISREG(shown.mode):
        result["size"] = shown.size
        result["sha256"] = entry.sha256.hex() or None
    if stat.S_ISLNK(shown.mode):
        result["target"] = entry.target.decode(errors="replace")
    if shown.rdev:
        result["device"] = [os.major(shown.rdev), os.minor(shown.rdev)]
    if entry.xattrs:
        result["xattrs"] = {name.decode(errors="replace"): value.hex() for name, value in entry.xattrs}
    result["layer"] = str(thing.place.layer) if thing.place is not None else None
    return result


TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFSOCK: "socket",
}
