"""The lock files satisfy pyproject.toml, and neither allows a version with a known advisory."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCKED = ROOT / "scripts/locked"
PYTHONS = ("3.11", "3.13")
MACHINES = ("x86_64", "aarch64")

# The first versions without advisories that were known in November 2026.  No advisory is known for the others.
FIXED = {
    "requests": "2.33.0",  # CVE-2024-35195, CVE-2024-47081, CVE-2026-25645
    "urllib3": "2.8.0",  # CVE-2025-66418, -66471, CVE-2026-21441, -44431, -44432, GHSA-8988-9cw3-xx77, -vxq7-64xx-v4gw
    "setuptools": "78.1.1",  # CVE-2025-47273
    "pytest": "9.0.3",  # CVE-2025-71176
    "idna": "3.7",  # CVE-2024-3651
    "certifi": "2024.7.4",  # CVE-2024-39689
    "pygments": "2.20.0",  # CVE-2026-4539
}
_PIN = re.compile(r"([a-z0-9-]+)==([^ ;]+)(?: ; (.+))?")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pins(name: str) -> list[tuple[Requirement, int]]:
    """Return what the lock file *name* pins, and how many files of each are known by hash."""
    found = []
    text = (LOCKED / f"{name}.txt").read_text()
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.startswith("#"):
            continue
        pin, *hashes = re.split(r" +(?=--hash)", line)
        assert _PIN.fullmatch(pin.strip()), f"{name}.txt: {line[:80]}"
        assert all(_HASH.fullmatch(one.strip()) for one in hashes), f"{name}.txt: {line[:80]}"
        found.append((Requirement(pin), len(hashes)))
    return found


def versions(name: str, python: str, machine: str) -> dict[str, Version]:
    """Return the versions that *name* installs on Linux with *python* on *machine*."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
    }
    found: dict[str, Version] = {}
    for requirement, _ in pins(name):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert requirement.name not in found, f"{requirement.name} is pinned twice for Python {python}"
            found[requirement.name] = Version(str(requirement.specifier).removeprefix("=="))
    return found


def stated(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return [requirement for text in texts if (requirement := Requirement(text)).name != "imagefs"]


def build_requirements() -> list[Requirement]:
    return [
        Requirement(text) for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    ]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_each_lock_satisfies_what_pyproject_states(python: str, machine: str) -> None:
    for name, requirements in (
        ("build", build_requirements()),
        ("run", stated()),
        ("test", stated("test", "fsspec")),
    ):
        locked = versions(name, python, machine)
        for requirement in requirements:
            assert requirement.specifier.contains(locked[requirement.name]), f"{requirement}: run scripts/lock"


@pytest.mark.parametrize("python", PYTHONS)
def test_tests_run_with_the_versions_that_are_installed(python: str) -> None:
    assert versions("run", python, "x86_64").items() <= versions("test", python, "x86_64").items()


@pytest.mark.parametrize("name", ["build", "run", "test"])
def test_every_file_is_known_by_its_hash_and_no_index_is_named(name: str) -> None:
    assert all(count for _, count in pins(name))
    assert "://" not in (LOCKED / f"{name}.txt").read_text()


def test_no_lower_bound_has_a_known_advisory() -> None:
    for requirement in [*build_requirements(), *stated("test", "fsspec")]:
        if requirement.name in FIXED:
            (bound,) = (one.version for one in requirement.specifier if one.operator == ">=")
            assert Version(bound) >= Version(FIXED[requirement.name]), requirement


@pytest.mark.parametrize("python", PYTHONS)
def test_no_locked_version_has_a_known_advisory(python: str) -> None:
    locked = {**versions("test", python, "x86_64"), **versions("build", python, "x86_64")}
    assert locked.keys() >= FIXED.keys()
    for name, version in FIXED.items():
        assert locked[name] >= Version(version)


def test_a_file_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "imagefs", "scripts"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    lock = checkout / "scripts/locked/build.txt"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{60}", "sha256:" + "0" * 60, lock.read_text()))
    done = subprocess.run(
        [checkout / "scripts/install", "--no-mount-helper", "--prefix", tmp_path / "prefix"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "prefix/bin").exists()
