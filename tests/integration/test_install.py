"""What `scripts/install` puts where, that it works there, and that it takes all of it away again.

Python packages that imagefs needs come from the index, as they do for everybody.
"""

import os
import subprocess
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path

import pytest

from imagefs import __version__
from tests.support.commands import needs, run

ROOT = Path(__file__).parent.parent.parent
INSTALL = ROOT / "scripts/install"


def install(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return run([INSTALL, "--no-mount-helper", *args], env={"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"})


def listing(folder: Path) -> set[str]:
    """Return all paths below *folder* but those of the environment with Python in it."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_relative_to(folder / "lib/imagefs/venv")
    }


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a prefix in which imagefs is installed beside something else, and which is like before afterwards."""
    prefix = tmp_path_factory.mktemp("prefix")
    (prefix / "share/man/man1").mkdir(parents=True)
    (prefix / "share/man/man1/other.1").touch()
    before = listing(prefix)
    install("--prefix", prefix)
    yield prefix
    install("--prefix", prefix, "--uninstall")
    assert listing(prefix) == before


@pytest.fixture(scope="module")
def packages(prefix: Path) -> Path:
    return next((prefix / "lib/imagefs/venv/lib").glob("python3.*/site-packages"))


def clean_environment(prefix: Path) -> dict[str, str]:
    return {"PYTHONPATH": "", "PATH": f"{prefix}/bin:/usr/bin:/bin"}


def test_the_installed_program_runs_from_anywhere(prefix: Path, tmp_path: Path) -> None:
    done = run(["sh", "-c", 'cd "$0" && imagefs --version', tmp_path], env=clean_environment(prefix))
    assert done.stdout == f"imagefs {__version__}\n"
    assert "usage: mount.imagefs" in run(["mount.imagefs", "--help"], env=clean_environment(prefix)).stdout


def test_everything_is_where_shells_man_and_systemd_look(prefix: Path) -> None:
    found = listing(prefix)
    assert {
        "bin/imagefs",
        "bin/mount.imagefs",
        "share/man/man1/imagefs.1",
        "share/man/man8/mount.imagefs.8",
        "share/bash-completion/completions/imagefs",
        "share/zsh/site-functions/_imagefs",
        "share/fish/vendor_completions.d/imagefs.fish",
    } <= found
    assert any(path.endswith("systemd/user/imagefs.service") for path in found)
    assert ("lib/systemd/system/mnt-images.automount" in found) == (os.geteuid() == 0)


def test_the_environment_has_imagefs_its_types_and_licence_and_no_tests(packages: Path) -> None:
    shipped = {
        str(path.relative_to(packages / "imagefs"))
        for path in (packages / "imagefs").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert shipped == {
        str(path.relative_to(ROOT / "imagefs"))
        for path in (ROOT / "imagefs").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert "py.typed" in shipped
    about = packages / f"imagefs-{__version__}.dist-info"
    assert (about / "licenses/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    recorded = {line.partition("/")[0] for line in (about / "RECORD").read_text().splitlines() if line[:2] != ".."}
    assert recorded == {"imagefs", about.name}


def test_metadata_is_complete(packages: Path) -> None:
    text = (packages / f"imagefs-{__version__}.dist-info/METADATA").read_text()
    metadata = message_from_string(text)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert text.endswith((ROOT / "README.md").read_text())
    assert metadata["Requires-Python"] == ">=3.11"


@needs("man")
def test_man_shows_the_installed_pages(prefix: Path) -> None:
    environment = {**clean_environment(prefix), "MANPATH": str(prefix / "share/man"), "LC_ALL": "C.UTF-8"}
    assert "imagefs - container images as a file system" in run(["man", "imagefs"], env=environment).stdout
    assert "mount.imagefs - mount" in run(["man", "8", "mount.imagefs"], env=environment).stdout


@needs("systemd-analyze")
def test_systemd_accepts_the_units(prefix: Path, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    for kind, folder in (("--system", "system"), ("--user", "user")):
        units = [path for path in prefix.glob(f"*/systemd/{folder}/*") if path.is_file()]
        assert units or os.geteuid() != 0
        if units:
            argv: list[str | Path] = ["systemd-analyze", kind, "--man=no", "verify", *units]
            done = run(argv, env={"XDG_RUNTIME_DIR": str(runtime)})
            assert (done.stdout, done.stderr) == ("", "")


def test_installing_again_changes_nothing(prefix: Path) -> None:
    before = listing(prefix)
    installed = (prefix / "lib/imagefs/installed").read_text()
    install("--prefix", prefix)
    assert listing(prefix) == before
    assert (prefix / "lib/imagefs/installed").read_text() == installed


def test_what_something_else_put_there_is_left_alone(tmp_path: Path) -> None:
    program = tmp_path / "bin/imagefs"
    program.parent.mkdir()
    program.write_text("another")
    done = run([INSTALL, "--no-mount-helper", "--prefix", tmp_path], check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"install: {program} was put there by something else; remove it first\n",
    )
    assert listing(tmp_path) == {"bin", "bin/imagefs"}
    done = run([INSTALL, "--no-mount-helper", "--prefix", tmp_path, "--uninstall"], check=False)
    assert done.returncode == 1
    assert "nothing is installed" in done.stderr
    assert program.read_text() == "another"


def test_a_list_that_names_what_is_elsewhere_removes_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    prefix = tmp_path / "prefix"
    (prefix / "lib/imagefs").mkdir(parents=True)
    (prefix / "lib/imagefs/installed").write_text(f"{tmp_path}/elsewhere\n")
    done = run([INSTALL, "--no-mount-helper", "--prefix", prefix, "--uninstall"], check=False)
    assert done.returncode == 1
    assert "is not below" in done.stderr
    assert (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("args", [["--nothing"], ["--prefix"], ["a.whl", "b.whl"], ["--prefix", "/tmp/a b"]])
def test_what_cannot_be_understood_is_refused(args: list[str]) -> None:
    done = run([INSTALL, "--no-mount-helper", *args], check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("install: ")


def test_the_recipe_of_the_container_image_copies_only_what_there_is() -> None:
    lines = (ROOT / "scripts/Containerfile").read_text().splitlines()
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    assert copied == [
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "imagefs",
        "scripts/environment.sh",
        "scripts/locked",
    ]
    assert all((ROOT / path).exists() for path in copied)
