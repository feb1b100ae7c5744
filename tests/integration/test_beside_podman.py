"""The same thirty images in podman and here: the same rows, filters, orders and verdicts.

What is different on purpose is left out one by one, with the reason beside it:

* podman prints names in whole; here, as with docker, ``docker.io/library/`` is left out.
* A reference is matched as docker does it, as a whole; podman's patterns also match the end of a name, and bring the
  other names of the image with them.  So those below say the whole name.
* Instructions are cut after 45 characters, as docker does, not after podman's 42 and three points.
* SIZE counts the layers here, as with docker; podman adds what it keeps beside them.  Its units have a space.
* podman's exit status for most failures is 125; here each kind has its own (README).  Only that it fails is compared.
"""

import io
import itertools
import json
import random
import shlex
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from imagefs.oci.reference import Reference
from tests.support.built_images import BuiltImage, docker_archive, dump, image, tar
from tests.support.commands import imagefs, needs
from tests.support.mounts import needs_root
from tests.support.podman import Podman, podman_storage

pytestmark = [pytest.mark.tools, needs("podman"), needs_root]

REPOSITORIES = ("app", "app2", "web", "acme/web", "acme/deep/web", "quay.io/acme/tool", "localhost:5000/app")
COUNT = 30
MOVED = 5


def built(number: int) -> BuiltImage:
    """Return image *number*; each was created a day after the one before, with labels by its number."""
    labels = {"team": "abc"[number % 3], "number": str(number)} | ({"odd": ""} if number % 2 else {})
    steps = [
        {"created": f"2024-01-{number + 1:02}T10:00:00Z", "created_by": f"COPY {number} / # buildkit"},
        {"created": f"2024-01-{number + 1:02}T11:00:00Z", "created_by": "ENV A=1 " + "x" * 60, "empty_layer": True},
    ]
    return image(
        [tar({f"file{number}": b"x" * 1000 * number})],
        created=f"2024-01-{number + 1:02}T12:00:00Z",
        config={"Labels": labels, "Env": ["PATH=/bin", f"N={number}"], "Cmd": ["/bin/sh"]},
        history=steps,
    )


def archive(path: Path, images: Mapping[int, list[str]]) -> Path:
    """Write a docker-archive of images by number with their names."""
    files: dict[str, bytes] = {}
    listed = []
    for number, names in images.items():
        one = docker_archive(built(number), names=names)
        listed += json.loads(one.pop("manifest.json"))
        files |= one
    with tarfile.open(path, "w") as out:
        for name, content in {**files, "manifest.json": dump(listed)}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


class Both:
    """The two tools on the same images."""

    def __init__(self, store: Path, podman: Podman) -> None:
        self._store = store
        self._podman = podman

    def ours(self, *arguments: str) -> CompletedProcess[str]:
        return imagefs("--store", self._store, *arguments, check=False)

    def theirs(self, *arguments: str) -> CompletedProcess[str]:
        return self._podman(*arguments, check=False)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("beside")
    chance = random.Random(6)  # the same each time
    names = [Reference.parse(f"{name}:{tag}") for name in REPOSITORIES for tag in ("1", "2", "latest", "v1.0-rc")]
    chance.shuffle(names)
    given = {number: [str(names.pop())] for number in range(20)}
    for number in (3, 8, 8):
        given[number].append(str(names.pop()))
    first = archive(folder / "first.tar", given)
    # The tags of some move to later images, which leaves those without a name.
    later = {20 + number: [str(given[number][0])] for number in range(COUNT - 20)}
    second = archive(folder / "second.tar", {number: name for number, name in later.items() if number < 20 + MOVED})
    third = archive(folder / "third.tar", {number: [f"docker.io/only/n{number}:1"] for number in range(25, COUNT)})
    with podman_storage() as podman:
        for path in (first, second, third):
            imagefs("--store", folder / "store", "load", "-q", path)
            podman("load", "-q", "-i", path)
        yield Both(folder / "store", podman)


FIELDS = "{{.Repository}} {{.Tag}} {{.ID}}"


def rows(text: str) -> list[tuple[str, str, str]]:
    """Return (canonical repository, tag, ID) of each line; the names of one image, whose order is free, sorted."""
    found = []
    for line in text.splitlines():
        repository, tag, id_ = line.split()
        if repository != "<none>":
            repository = Reference.parse(repository).name
        found.append((repository, tag, id_.removeprefix("sha256:")))
    return [row for _, group in itertools.groupby(found, key=lambda row: row[2]) for row in sorted(group)]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "-a",
        "--no-trunc",
        "--sort created",
        "--filter dangling=true",
        "--filter dangling=false",
        "--filter before=quay.io/acme/tool:1",
        "--filter since=quay.io/acme/tool:1",
        "--filter after=app:1",
        "--filter until=2024-01-10T12:00:00Z",
        "--filter label=team=a",
        "--filter label=odd",
        "--filter label=number=7",
        "--filter label=none",
        "--filter reference=docker.io/library/app2",
        "--filter reference=docker.io/acme/web:1",
        "--filter reference=quay.io/*/*",
        "--filter reference=quay.io/acme/tool:[1v]*",
        "--filter reference=nothing",
        "--filter dangling=false --filter label=team=b",
        "--filter label=team=b --filter before=quay.io/acme/tool:1 --filter reference=*web*",
        "quay.io/acme/tool",
        "quay.io/acme/tool:1",
        "nothing",
    ],
)
def test_the_same_rows_in_the_same_order(both: Both, arguments: str) -> None:
    ours = both.ours("ls", *shlex.split(arguments), "--format", FIELDS)
    theirs = both.theirs("images", *shlex.split(arguments), "--format", FIELDS)
    assert (ours.returncode, theirs.returncode) == (0, 0), (ours.stderr, theirs.stderr)
    assert rows(ours.stdout) == rows(theirs.stdout)


def test_there_are_thirty_images_and_some_without_a_name(both: Both) -> None:
    ours = rows(both.ours("ls", "--format", FIELDS).stdout)
    assert len({id_ for _, _, id_ in ours}) == COUNT
    assert sum(repository == "<none>" for repository, _, _ in ours) >= MOVED - 1


@pytest.mark.parametrize("arguments", ["-q", "-q --no-trunc", "-q --filter label=team=a", "--noheading"])
def test_ids_and_headings(both: Both, arguments: str) -> None:
    ours = both.ours("ls", *arguments.split()).stdout.splitlines()
    theirs = both.theirs("images", *arguments.split()).stdout.splitlines()
    if "-q" in arguments:
        # Here, as with docker, an image with two tags is printed twice.
        assert list(dict.fromkeys(ours)) == list(dict.fromkeys(theirs))
    else:
        assert len(ours) == len(theirs)
    heading = both.ours("ls").stdout.splitlines()[0].split()
    assert heading == both.theirs("images").stdout.splitlines()[0].split()


@pytest.mark.parametrize(
    "template",
    [
        "{{.Architecture}}/{{.Os}}",
        "{{.Config.Env}}",
        "{{json .Config.Labels}}",
        "{{index .Config.Cmd 0}}",
        "{{range .RootFS.Layers}}{{.}};{{end}}",
        "{{len .RootFS.Layers}}",
        "{{if .Config.Labels.odd}}yes{{else}}no{{end}}",
        "{{.Config.Labels.team | upper}}",
    ],
)
def test_inspect_fills_the_same_templates_the_same_way(both: Both, template: str) -> None:
    for name in ("app:1", "quay.io/acme/tool:1"):
        ours = both.ours("inspect", "--format", template, name)
        theirs = both.theirs("image", "inspect", "--format", template, name)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), (ours.stderr, theirs.stderr)


def test_history_tells_the_same_steps(both: Both) -> None:
    for name in ("app:1", "quay.io/acme/tool:1"):
        for arguments in (["--no-trunc", "--format", "{{.ID}} {{.CreatedBy}}"], ["--format", "{{.ID}}"], ["-q"]):
            ours = both.ours("history", *arguments, name).stdout.splitlines()
            theirs = both.theirs("history", *arguments, name).stdout.splitlines()
            assert [line.removeprefix("sha256:") for line in ours] == theirs


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("inspect nothing", "image inspect nothing"),
        ("inspect app:1", "image inspect app:1"),
        ("rm nothing", "rmi nothing"),
        ("tag app:1 Bad", "tag app:1 Bad"),
        ("tag nothing good", "tag nothing good"),
        ("untag nothing", "untag nothing"),
        ("history nothing", "history nothing"),
        ("ls --filter bogus=1", "images --filter bogus=1"),
        ("ls --filter before=nothing", "images --filter before=nothing"),
        ("ls --filter dangling=maybe", "images --filter dangling=maybe"),
        ("ls --sort bogus", "images --sort bogus"),
        ("ls --format {{.Bogus}}", "images --format {{.Bogus}}"),
        ("save nothing", "save nothing"),
        ("load /nothing", "load -i /nothing"),
    ],
)
def test_both_fail_or_neither(both: Both, ours: str, theirs: str) -> None:
    done, judge = both.ours(*ours.split()), both.theirs(*theirs.split())
    assert (done.returncode != 0) == (judge.returncode != 0), (done.stdout, done.stderr, judge.stdout, judge.stderr)
    assert done.returncode == 0 or done.stderr.startswith("imagefs")
