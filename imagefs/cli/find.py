"""``find`` and ``tree``: which things an image has, without a mount.

The tests of ``find`` are those of find(1) that make sense for an image, in its spelling.
"""

import argparse
import fnmatch
import itertools
import re
import stat
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from imagefs.cli.paths import found_at, opened_tree
from imagefs.cli.report import for_each
from imagefs.text import json_text, path_text

if TYPE_CHECKING:  # imported where they run: `imagefs --help` need not wait for them
    from imagefs.view.tree import ImageTree, Thing

    Test = Callable[[bytes, Thing], bool]

_SIZE_UNITS = {"": 512, "b": 512, "c": 1, "w": 2, "k": 1024, "M": 1024**2, "G": 1024**3}
_LIST_WIDTHS = (10, 3, 8, 8, 8, 16, 0)
_SIZE = re.compile(r"([+-]?)([0-9]{1,18})([bcwkMG]?)")
_PERMISSIONS = re.compile(r"([-/]?)([0-7]{1,5})")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add these commands to the command line."""
    find = commands.add_parser(
        "find",
        help="find files in an image",
        description="Print the paths of what is in an image, or below PATH in it, and passes all tests given. Symlinks"
        " on the way to PATH are followed inside the image, others are not.",
        epilog="Tests are those of find(1). Odd names are quoted as git does; -print0 and --json give them whole.",
    )
    # A size such as -10M is a value, not an option: argparse has no public way to say so.
    find._negative_number_matcher = re.compile(r"-[0-9]+[bcwkMG]?$")
    tests = find.add_argument_group("tests")
    for option, what in (
        ("-name", "its name matches GLOB"),
        ("-iname", "the same, whatever the case"),
        ("-path", "its path, which begins with /, matches GLOB, whose * also matches slashes"),
    ):
        tests.add_argument(option, action="append", default=[], metavar="GLOB", help=what)
    tests.add_argument("-type", type=_types, metavar="TYPE,…", help="f, d, l, p, c or b, or several with commas")
    tests.add_argument("-perm", type=_permissions, metavar="MODE", help="these permission bits; -MODE all, /MODE any")
    tests.add_argument("-size", type=_size, metavar="[+-]N[cwbkMG]", help="so many units, more or less, rounded up")
    tests.add_argument("-uid", type=int, metavar="N", help="it belongs to this user")
    tests.add_argument("-gid", type=int, metavar="N", help="it belongs to this group")
    tests.add_argument("-xattr", metavar="GLOB", help="it has an extended attribute of such a name")
    tests.add_argument("-layer", type=_count, metavar="N", help="it comes from layer N, counted from the base as 1")
    find.add_argument("-maxdepth", type=_count, metavar="N", help="go down at most N levels below PATH")
    output = find.add_mutually_exclusive_group()
    output.add_argument("-print0", action="store_true", help="end each path with a NUL, and quote nothing")
    output.add_argument("-ls", action="store_true", help="print a line as ls -l does")
    output.add_argument("--json", action="store_true", help="print an object a line with all that is known")
    find.add_argument("reference", metavar="REF", help="a name or ID of an image, or REF@layer:N")
    find.add_argument("paths", nargs="*", default=["/"], metavar="PATH")
    find.set_defaults(run=run_find)

    tree = commands.add_parser(
        "tree",
        help="draw an image's directories and files as a tree",
        description="Draw what is in an image, or below PATH in it, as a tree.",
    )
    tree.add_argument("-L", "--level", type=_count, metavar="N", help="go down at most N levels")
    tree.add_argument("-d", "--directories", action="store_true", help="only directories")
    tree.add_argument("reference", metavar="REF", help="a name or ID of an image, or REF@layer:N")
    tree.add_argument("path", nargs="?", default="/", metavar="PATH")
    tree.set_defaults(run=run_tree)


def run_find(namespace: argparse.Namespace) -> int:
    """Print what is found; a PATH that is not there is reported, the others are searched all the same."""
    with opened_tree(namespace, namespace.reference) as tree:
        passes, write = _test(tree, namespace), _writer(tree, namespace)

        def search(text: str) -> None:
            top = found_at(tree, text, namespace.reference, follow=text.endswith("/"))
            below = tree.walk(top, depth=namespace.maxdepth) if top[1].is_directory and namespace.maxdepth != 0 else ()
            for path, thing in itertools.chain([top], below):
                if passes(path, thing):
                    write(path, thing)

        return for_each(namespace.paths, search)


def _test(tree: "ImageTree", asked: argparse.Namespace) -> "Test":
    """Return a function that tells whether a thing at a path passes all tests, the cheapest asked first."""
    tests: list[Test] = [_globbed(glob, of_name=True, folded=False) for glob in asked.name]
    tests += [_globbed(glob, of_name=True, folded=True) for glob in asked.iname]
    tests += [_globbed(glob, of_name=False, folded=False) for glob in asked.path]
    if asked.type is not None:
        tests.append(lambda _, thing: stat.S_IFMT(thing.attributes.mode) in asked.type)
    if asked.perm is not None:
        tests.append(lambda _, thing: asked.perm(stat.S_IMODE(thing.attributes.mode)))
    if asked.size is not None:
        tests.append(lambda _, thing: asked.size(thing.attributes.size))
    if asked.uid is not None:
        tests.append(lambda _, thing: thing.attributes.uid == asked.uid)
    if asked.gid is not None:
        tests.append(lambda _, thing: thing.attributes.gid == asked.gid)
    if asked.layer is not None:
        wanted = tree.stack.diff_ids[asked.layer - 1] if 0 < asked.layer <= len(tree.stack.diff_ids) else None
        tests.append(lambda _, thing: thing.place is not None and thing.place.layer == wanted)
    if asked.xattr is not None:
        glob = re.compile(fnmatch.translate(asked.xattr).encode("utf-8", "surrogateescape"), re.DOTALL)
        tests.append(lambda _, thing: any(glob.match(name) for name, _ in tree.entry(thing).xattrs))
    return lambda path, thing: all(test(path, thing) for test in tests)


def _globbed(glob: str, *, of_name: bool, folded: bool) -> "Test":
    flags = re.DOTALL | (re.IGNORECASE if folded else 0)
    matches = re.compile(fnmatch.translate(glob), flags).match

    def test(path: bytes, _: "Thing") -> bool:
        text = (path.rpartition(b"/")[2] or b"/") if of_name else b"/" + path
        return matches(text.decode("utf-8", "surrogateescape")) is not None

    return test


def _writer(tree: "ImageTree", asked: argparse.Namespace) -> "Callable[[bytes, Thing], None]":
    from imagefs.cli.listing import Lister, aligned

    if asked.print0:
        return lambda path, _: _raw(b"/" + path + b"\0")
    if asked.json:
        lister = Lister(tree)
        return lambda path, thing: print(json_text(lister.record(path, thing)))
    if asked.ls:
        lister = Lister(tree)
        return lambda path, thing: print(*aligned([lister.cells(path_text(path), thing)], least=_LIST_WIDTHS))
    return lambda path, _: print(path_text(path))


def _raw(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def run_tree(namespace: argparse.Namespace) -> int:
    """Draw the tree, and count what is in it."""
    counts = [0, 0]
    with opened_tree(namespace, namespace.reference) as tree:
        top = found_at(tree, namespace.path, namespace.reference, follow=True)
        print(path_text(top[0]))
        # Each level: what is still to be drawn there, and what stands before it on each line.
        levels = [(_drawn(tree, top, namespace), "")]
        while levels and top[1].is_directory:
            rest, prefix = levels[-1]
            if not rest:
                levels.pop()
                continue
            path, thing = rest.pop()
            name = path_text(path.rpartition(b"/")[2], root="")
            target = f" -> {path_text(tree.entry(thing).target, root='')}" if _is_symlink(thing) else ""
            print(f"{prefix}{'├── ' if rest else '└── '}{name}{target}")
            counts[0 if thing.is_directory else 1] += 1
            if thing.is_directory and (namespace.level is None or len(levels) < namespace.level):
                levels.append((_drawn(tree, (path, thing), namespace), prefix + ("│   " if rest else "    ")))
    folders = f"{counts[0]} director{'y' if counts[0] == 1 else 'ies'}"
    print(f"\n{folders}" + ("" if namespace.directories else f", {counts[1]} file{'' if counts[1] == 1 else 's'}"))
    return 0


def _drawn(tree: "ImageTree", top: "tuple[bytes, Thing]", asked: argparse.Namespace) -> "list[tuple[bytes, Thing]]":
    """Return what is to be drawn of the children of *top*, the last first."""
    if not top[1].is_directory or asked.level == 0:
        return []
    return [child for child in tree.children(*top) if child[1].is_directory or not asked.directories][::-1]


def _is_symlink(thing: "Thing") -> bool:
    return stat.S_ISLNK(thing.attributes.mode)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a number, not '{text}'")
    return int(text)


def _types(text: str) -> frozenset[int]:
    from imagefs.cli.listing import TYPES

    letters = {letter: type_ for type_, letter in TYPES.items()}
    try:
        return frozenset(letters[letter] for letter in text.split(","))
    except KeyError:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(letters)} with commas, not '{text}'") from None


def _permissions(text: str) -> Callable[[int], bool]:
    found = _PERMISSIONS.fullmatch(text)
    if found is None or int(found[2], 8) > 0o7777:
        raise argparse.ArgumentTypeError(f"expected octal bits such as 644, -4000 or /6000, not '{text}'")
    bits = int(found[2], 8)
    if found[1] == "-":
        return lambda mode: mode & bits == bits
    if found[1] == "/":
        return lambda mode: bits == 0 or bool(mode & bits)
    return lambda mode: mode == bits


def _size(text: str) -> Callable[[int], bool]:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a size such as +10M, -4k or 0, not '{text}'")
    count, unit = int(found[2]), _SIZE_UNITS[found[3]]
    if found[1] == "+":
        return lambda size: -(-size // unit) > count
    if found[1] == "-":
        return lambda size: -(-size // unit) < count
    return lambda size: -(-size // unit) == count
