"""``diff``: what makes one image another, without reading either."""

import argparse
import sys
from typing import TYPE_CHECKING

from imagefs.errors import ImagefsError, InvalidReference
from imagefs.text import json_text

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.compare.layers import LayerShare
    from imagefs.compare.trees import Change
    from imagefs.store.catalog import Image
    from imagefs.store.store import Store
    from imagefs.view.tree import ImageTree, Thing

_TROUBLE = 2
_IGNORABLE = ("content", "target", "device", "mode", "owner", "times", "xattrs")
_OTHER_WORDS = {"mtime": "times", "uid": "owner", "gid": "owner", "time": "times", "xattr": "xattrs"}


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "diff",
        help="compare two images, metadata included",
        description="Print what makes NEW another tree than OLD, in the order of diff -r: A added, D deleted, C changed"
        " and in what. REF@layer:N is the image as of its layer N, counted from 1, the base. Works on digests; only -u"
        " reads files.",
        epilog="exit status: 0 the trees are the same, 1 they differ, 2 trouble. Paths that are not printable UTF-8"
        " are quoted as git quotes them.",
    )
    command.add_argument("old", metavar="OLD", help="a name or ID of an image, or REF@layer:N")
    command.add_argument("new", metavar="NEW")
    command.add_argument("path", nargs="?", metavar="PATH", help="compare only what is there")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--stat", action="store_true", help="also print by how many bytes each file grew, and totals")
    form.add_argument("--name-only", action="store_true", help="print only paths")
    form.add_argument("--json", action="store_true", help="print a JSON object a line, all attributes included")
    form.add_argument("-u", "--unified", action="store_true", help="also print the changed lines of text files")
    command.add_argument("-z", "--null", action="store_true", help="with --name-only: raw paths, each ended by a NUL")
    command.add_argument("-q", "--quiet", action="store_true", help="print nothing; the exit status tells")
    command.add_argument(
        "--ignore",
        type=_aspects,
        metavar="WHAT,…",
        action="extend",
        default=[],
        help=f"do not count these as changes: {', '.join(_IGNORABLE)} (mtime is times)",
    )
    command.add_argument("--layers", action="store_true", help="first print which layers both have, what others do")
    command.add_argument("--config", action="store_true", help="also compare environment, entrypoint, labels, user, …")
    command.set_defaults(run=run)


def _aspects(text: str) -> list[str]:
    found = [_OTHER_WORDS.get(word, word) for word in text.split(",") if word]
    for word in found:
        if word not in _IGNORABLE:
            raise argparse.ArgumentTypeError(f"'{word}' is none of {', '.join(_IGNORABLE)}")
    return found


def run(namespace: argparse.Namespace) -> int:
    """Print the differences; see the command's epilog for the exit status."""
    from imagefs.cli.report import report
    from imagefs.store.store import Store

    try:
        with Store.open(namespace.store, trust=namespace.trust_store) as store:
            return _run(store, namespace)
    except BrokenPipeError:
        raise
    except (ImagefsError, OSError) as error:
        report(error)
        return _TROUBLE


def _run(store: "Store", namespace: argparse.Namespace) -> int:
    from imagefs.compare.layers import layer_shares
    from imagefs.compare.trees import compare
    from imagefs.view.kept import KeptFiles
    from imagefs.view.opened import OpenedImages
    from imagefs.view.tree import looked_at, named

    if namespace.null and not namespace.name_only:
        raise InvalidReference("-z", "it goes with --name-only")
    images = OpenedImages(store, KeptFiles())
    (old_image, old_stack), (new_image, new_stack) = named(store, namespace.old), named(store, namespace.new)
    old = looked_at(images, old_stack, passing=old_stack.diff_ids != old_image.diff_ids)
    new = looked_at(images, new_stack, passing=new_stack.diff_ids != new_image.diff_ids)
    printing = _Printing(namespace, old, new)
    if namespace.layers:
        for share in layer_shares(images, old_stack, new_stack):
            printing.layer(share, store.layer_path(share.diff_id).stat().st_size)
    differs = namespace.config and _configs(store, old_image, new_image, printing)
    at = _places(namespace, old, new) if namespace.path is not None else None
    for change in compare(old, new, at=at, ignore=namespace.ignore):
        differs = True
        if namespace.quiet:
            break
        printing.change(change)
    printing.end()
    return 1 if differs else 0


def _places(
    namespace: argparse.Namespace, old: "ImageTree", new: "ImageTree"
) -> "tuple[bytes, Thing | None, Thing | None]":
    from imagefs.cli.paths import clean, not_found

    path = clean(namespace.path)
    before, after = old.find(path), new.find(path)
    if before is None and after is None:
        raise not_found(new, path, namespace.new)
    return path, before[1] if before else None, after[1] if after else None


def _configs(store: "Store", old: "Image", new: "Image", printing: "_Printing") -> bool:
    from imagefs.compare.configs import compare_configs
    from imagefs.oci.config import parse_config

    before, after = (parse_config(store.document(image.id), algorithm=image.id.algorithm) for image in (old, new))
    settings = list(compare_configs(before, after))
    for setting in settings:
        printing.setting(setting.name, setting.old, setting.new)
    return bool(settings)


_COLORS = {"A": "green", "D": "red", "C": "yellow"}
_LINE_COLORS = {b"+": "green", b"-": "red", b"@": "bold"}


class _Printing:
    """What is printed of differences, in the form that was asked for."""

    def __init__(self, namespace: argparse.Namespace, old: "ImageTree", new: "ImageTree") -> None:
        self._asked = namespace
        self._old = old
        self._new = new
        self._counts = {"A": 0, "D": 0, "C": 0}
        self._grown = 0
        self._shrunk = 0

    def change(self, change: "Change") -> None:
        from imagefs.cli.terminal import print_styled
        from imagefs.text import path_text

        asked = self._asked
        if asked.json:
            self._json(change)
        elif asked.null:
            self._raw(change.path + b"\0")
        elif asked.name_only:
            self._line(path_text(change.path))
        else:
            line = f"{change.kind} {path_text(change.path)}"
            if change.aspects:
                line += f"  {', '.join(change.aspects)}"
            print_styled(line + (self._growth(change) if asked.stat else ""), _COLORS[change.kind])
            if asked.unified:
                self._text(change)

    def _growth(self, change: "Change") -> str:
        from imagefs.text import signed_size

        self._counts[change.kind] += 1
        self._grown += change.bytes_after
        self._shrunk += change.bytes_before
        if change.kind == "C" and "content" not in change.aspects and "type" not in change.aspects:
            return ""
        return f"  {signed_size(change.bytes_after - change.bytes_before)}"

    def end(self) -> None:
        """Print what is known only in the end."""
        from imagefs.text import signed_size

        if self._asked.stat and not self._asked.quiet:
            counts = self._counts
            total = signed_size(self._grown - self._shrunk)
            self._line(f"{counts['A']} added, {counts['D']} deleted, {counts['C']} changed, {total}")

    def _text(self, change: "Change") -> None:
        from imagefs.cli.terminal import print_styled
        from imagefs.compare.unified import unified
        from imagefs.text import path_text

        if "content" not in change.aspects or change.old is None or change.new is None:
            return
        old_label, new_label = (
            path_text(change.path, root=f"{name}/").encode() for name in (self._asked.old, self._asked.new)
        )
        before, after = self._old.open(change.old), self._new.open(change.new)
        for line in unified(before, after, old_label=old_label, new_label=new_label):
            if sys.stdout.isatty():
                text = line.removesuffix(b"\n").decode("utf-8", "surrogateescape")
                print_styled(text, _LINE_COLORS.get(line[:1]))
            else:  # a patch: lines of files are data
                self._raw(line)

    def _json(self, change: "Change") -> None:
        from imagefs.compare.trees import described

        said: dict[str, object] = {"kind": {"A": "added", "D": "deleted", "C": "changed"}[change.kind]}
        said["path"] = "/" + change.path.decode(errors="replace")
        try:
            change.path.decode()
        except UnicodeDecodeError:
            said["path_hex"] = change.path.hex()
        if change.aspects:
            said["changes"] = list(change.aspects)
        for name, side, thing in (("old", self._old, change.old), ("new", self._new, change.new)):
            if thing is not None:
                said[name] = described(side, thing)
        self._line(json_text(said))

    def layer(self, share: "LayerShare", stored_bytes: int) -> None:
        """Print what is known of one layer, whose tar has *stored_bytes*."""
        from imagefs.text import size

        if self._asked.json:
            said = {"kind": "layer", "in": share.where, "layer": str(share.diff_id), "size": stored_bytes}
            self._line(json_text({**said, "adds": share.adds, "frees": share.frees}))
        elif not self._asked.quiet:
            line = f"{ {'both': '=', 'old': '-', 'new': '+'}[share.where] } {share.diff_id}  {size(stored_bytes)}"
            if share.where != "both":
                line += f"  adds {size(share.adds)}, frees {size(share.frees)}"
            self._line(line)

    def setting(self, name: str, old: str | None, new: str | None) -> None:
        """Print one difference of the configs."""
        from imagefs.text import printable

        if self._asked.json:
            self._line(json_text({"kind": "config", "name": name, "old": old, "new": new}))
        elif not self._asked.quiet:
            limit = 10_000
            sign = "A" if old is None else "D" if new is None else "C"
            shown = " → ".join(printable(text, limit=limit) for text in (old, new) if text is not None)
            self._line(f"{sign} {printable(name)}: {shown}")

    def _line(self, text: str) -> None:
        print(text)

    def _raw(self, data: bytes) -> None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
