"""From a real registry to a real mount: what was pulled and mounted is what umoci unpacks of the same image."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.commands import imagefs, needs, run, umoci_unpack
from tests.support.data import data_dir, needs_data
from tests.support.mounts import mounted, needs_fuse, needs_root
from tests.support.nasty import nasty_layout
from tests.support.real_registry import RealRegistry, real_registry
from tests.support.snapshot import differences, snapshot

pytestmark = [
    *needs_fuse,
    pytest.mark.usefixtures("driver"),
    pytest.mark.tools,
    needs_root,
    needs("umoci"),
    needs("skopeo"),
    needs("docker-registry"),
]
PLATFORMS = {
    "linux/arm/v7": ["--override-arch=arm", "--override-variant=v7"],
    "linux/riscv64": ["--override-arch=riscv64"],
}


@dataclass(frozen=True)
class Line:
    """A registry, a store pulled from it, and the store's mount."""

    registry: RealRegistry
    store: Path
    top: Path


@pytest.fixture(scope="module")
def line(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp("line")
    with real_registry(folder / "registry") as registry:
        registry.push(nasty_layout(folder / "nasty"), "1", "nasty:1")
        registry.push(folder / "nasty", "2", "nasty:2")
        imagefs("--store", folder / "store", "pull", f"{registry.host}/nasty:1")
        with mounted(folder / "store", folder / "mnt"):
            yield Line(registry, folder / "store", folder / "mnt")


def test_a_pulled_image_equals_what_umoci_unpacks(line: Line, tmp_path: Path) -> None:
    imagefs("--store", line.store, "pull", f"{line.registry.host}/nasty:2")
    layout = nasty_layout(tmp_path / "nasty")
    for tag in ("1", "2"):
        unpacked = umoci_unpack(layout, tag, tmp_path / tag)
        assert differences(snapshot(line.top / line.registry.host / "nasty" / tag), snapshot(unpacked)) == []


@needs_data
@pytest.mark.parametrize(
    ("name", "tag"), [("alpine", "3.18"), ("alpine", "3.20"), ("small", "base"), ("small", "v1"), ("small", "v2")]
)
def test_a_pulled_real_image_equals_what_umoci_unpacks(name: str, tag: str, line: Line, tmp_path: Path) -> None:
    layout = (data_dir() or Path()) / "images" / name
    line.registry.push(layout, tag, f"{name}:{tag}")
    imagefs("--store", line.store, "pull", f"{line.registry.host}/{name}:{tag}")
    unpacked = umoci_unpack(layout, tag, tmp_path / "bundle")
    assert differences(snapshot(line.top / line.registry.host / name / tag), snapshot(unpacked)) == []


@needs_data
@pytest.mark.parametrize("platform", [None, *PLATFORMS])
def test_of_a_multi_platform_image_the_right_one_is_shown(platform: str | None, line: Line, tmp_path: Path) -> None:
    layout = (data_dir() or Path()) / "images" / "busybox-multi"
    name = f"{line.registry.host}/busybox:multi"
    run(
        [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--all",
            "-q",
            "--dest-tls-verify=false",
            f"oci:{layout}",
            f"docker://{name}",
        ]
    )
    imagefs("--store", line.store, "pull", *(["--platform", platform] if platform else []), name)
    override = PLATFORMS[platform] if platform else []
    run(["skopeo", "--insecure-policy", "copy", "-q", *override, f"oci:{layout}", f"oci:{tmp_path / 'one'}:x"])
    unpacked = umoci_unpack(tmp_path / "one", "x", tmp_path / "bundle")
    # The tag moved in the store with every pull; its path may be the old image's for a moment.
    image_id = imagefs("--store", line.store, "ls", "-q", f"{line.registry.host}/busybox").stdout.split()[0]
    shown = line.top / ".imagefs" / "images" / image_id
    assert differences(snapshot(shown), snapshot(unpacked)) == []
