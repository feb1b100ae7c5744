"""``find``, ``tree`` and ``ls REF PATH``: what is in an image, judged by find(1) and ls(1) on what umoci unpacks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.commands import imagefs, needs, run, umoci_unpack
from tests.support.images import add_image
from tests.support.layers import char, dir_, file, layer, link, symlink
from tests.support.mounts import needs_root
from tests.support.nasty import nasty_layout

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/:/bin/false\nevil\x1b[31m:x:7:7::/:\nnobody:x:65534\n"
BASE = layer(
    dir_("etc", mtime_ns=1_700_000_000_000_000_000),
    file("etc/passwd", PASSWD),
    file("etc/group", b"root:x:0:\nwww:x:33:\n"),
    file("etc/conf", b"x" * 2000, uid=33, gid=33, mode=0o640),
    symlink("etc/link", "conf"),
    dir_("bin"),
    file("bin/su", b"\x7fELF", mode=0o4755, xattrs={"security.capability": b"\x01\x02"}),
    link("bin/doas", "bin/su"),
    char("null", 1, 3, uid=7),
)
TOP = layer(
    file("etc/new\x1b", b"", mtime_ns=10**18 * 9), file(b"etc/\xff", b""), dir_("etc/deep"), dir_("etc/deep/er")
)


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [BASE, TOP], "app:1")
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("tests", "expected"),
    [
        (("-name", "*s*", "-type", "f"), "/bin/doas /bin/su /etc/passwd"),
        (("/etc", "-iname", "PASS*"), "/etc/passwd"),
        (("-path", "/etc/*/*"), "/etc/deep/er"),
        (("-perm", "-4000"), "/bin/doas /bin/su"),
        (("-perm", "/6000"), "/bin/doas /bin/su"),
        (("-perm", "640"), "/etc/conf"),
        (("-type", "c,l"), "/etc/link /null"),
        (("-size", "+1k"), "/etc/conf"),
        (("-size", "-1c", "-type", "f"), '"/etc/new\\033" "/etc/\\377"'),
        (("-uid", "33", "-gid", "33"), "/etc/conf"),
        (("-xattr", "security.*"), "/bin/doas /bin/su"),
        (("-layer", "2", "-type", "d"), "/etc/deep /etc/deep/er"),
        (("-layer", "9"), ""),
        (("bin", "-maxdepth", "0"), "/bin"),
        (("-maxdepth", "1", "-type", "d"), "/ /bin /etc"),
        (("etc/link",), "/etc/link"),
        (("null", "bin/su"), "/null /bin/su"),
    ],
)
def test_tests_are_those_of_find(store_path: Path, tests: tuple[str, ...], expected: str) -> None:
    assert imagefs("--store", store_path, "find", "app:1", *tests).stdout.split() == expected.split()


@pytest.mark.parametrize(
    ("arguments", "said", "status"),
    [
        (("-type", "x"), "expected some of f, d, l, p, c, b with commas, not 'x'", 2),
        (("-perm", "u+s"), "expected octal bits", 2),
        (("-size", "big"), "expected a size", 2),
        (("-maxdepth", "-1"), "expected a number", 2),
        (("nowhere", "bin"), "no such file or directory in app:1: /nowhere", 7),
    ],
)
def test_what_cannot_be_looked_for_is_said(
    store_path: Path, arguments: tuple[str, ...], said: str, status: int
) -> None:
    done = imagefs("--store", store_path, "find", "app:1", *arguments, check=False)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert done.stdout == ("/bin\n/bin/doas\n/bin/su\n" if status == 7 else "")


def test_names_come_whole_or_safe(store_path: Path) -> None:
    raw = subprocess.run(
        [sys.executable, "-m", "imagefs", "--store", store_path, "find", "app:1", "etc", "-print0", "-type", "f"],
        check=True,
        capture_output=True,
    )
    assert raw.stdout.split(b"\0")[-3:] == [b"/etc/passwd", b"/etc/\xff", b""]
    found = [
        json.loads(line)
        for line in imagefs("--store", store_path, "find", "app:1", "bin", "--json").stdout.splitlines()
    ]
    assert [one["path"] for one in found] == ["/bin", "/bin/doas", "/bin/su"]
    assert found[2]["xattrs"] == {"security.capability": "0102"}
    assert (found[2]["mode"], found[2]["links"], found[1]["inode"]) == ("4755", 2, found[2]["inode"])
    latin = imagefs("--store", store_path, "tree", "app:1", "bin", env={"PYTHONIOENCODING": "latin-1"})
    assert "su" in latin.stdout


def test_a_listing_names_owners_as_the_image_does(store_path: Path) -> None:
    lines = imagefs("--store", store_path, "ls", "-l", "app:1", "etc", env={"TZ": "UTC"}).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "-rw-r-----", "drwxr-xr-x", "-rw-r--r--", "lrwxrwxrwx", "-rw-r--r--", "-rw-r--r--", "-rw-r--r--",
    ]  # fmt: skip
    assert lines[0].split()[1:5] == ["1", "web", "www", "2000"]
    assert lines[3].endswith(" link -> conf")
    assert lines[4].endswith('2255-03-14 16:00 "new\\033"')
    devices = imagefs("--store", store_path, "ls", "-l", "app:1", "null").stdout
    assert devices.startswith("crw-r--r-- 1 7 root 1, 3 ")  # no name with an escape in it
    numbers = imagefs("--store", store_path, "ls", "-ln", "app:1", "etc/conf").stdout
    assert numbers.split()[2:4] == ["33", "33"]
    assert (
        imagefs("--store", store_path, "ls", "app:1", "bin", "etc/deep").stdout == "bin:\ndoas\nsu\n\netc/deep:\ner\n"
    )
    assert imagefs("--store", store_path, "ls", "app:1@layer:1", "etc").stdout.split() == [
        "conf",
        "group",
        "link",
        "passwd",
    ]


def test_a_long_listing_wants_a_path(store_path: Path) -> None:
    done = imagefs("--store", store_path, "ls", "-l", check=False)
    assert (done.returncode, "give its name and a path" in done.stderr) == (2, True)
    done = imagefs("--store", store_path, "ls", "app:1", "etc/pass", "bin", check=False)
    assert done.returncode == 7
    assert "did you mean /etc/passwd?" in done.stderr
    assert "doas" in done.stdout


def test_a_tree_is_drawn(store_path: Path) -> None:
    assert imagefs("--store", store_path, "tree", "app:1", "etc", "-L", "1").stdout == (
        '/etc\n├── conf\n├── deep\n├── group\n├── link -> conf\n├── "new\\033"\n├── passwd\n└── "\\377"\n'
        "\n1 directory, 6 files\n"
    )
    assert imagefs("--store", store_path, "tree", "-d", "app:1").stdout == (
        "/\n├── bin\n└── etc\n    └── deep\n        └── er\n\n4 directories\n"
    )
    assert imagefs("--store", store_path, "tree", "app:1", "bin/su").stdout == "/bin/su\n\n0 directories, 0 files\n"


@pytest.mark.tools
@needs("umoci")
@needs_root
@pytest.mark.parametrize(
    "test", ["", "-perm -4000", "-perm /111", "-perm 644", "-size +1k", "-size -2", "-size 1", "-uid 12", "-name *o*"]
)
def test_find_finds_what_find_finds(tmp_path: Path, test: str) -> None:
    layout = nasty_layout(tmp_path / "nasty")
    root = umoci_unpack(layout, "2", tmp_path / "unpacked")
    imagefs("--store", tmp_path / "store", "load", "-q", layout)
    tests = [*test.split(), "-type", "f,l,p,c,b"]  # sizes of directories are the disk's own affair
    found = run(["find", root, *tests, "-printf", "/%P\\0"]).stdout
    ours = imagefs("--store", tmp_path / "store", "find", "nasty:2", *tests, "-print0").stdout
    assert sorted(ours.split("\0")) == sorted(found.split("\0"))
    assert len(ours) > 1
