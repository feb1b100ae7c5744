"""What pull says and stores, against a registry client that answers from memory."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from imagefs.errors import DigestMismatch, ManifestUnknown, NoMatchingPlatform
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import DiffId, Digest, verified
from imagefs.oci.platform import Platform
from imagefs.oci.reference import Reference
from imagefs.registry.client import RegistryClient
from imagefs.store.store import Store
from imagefs.transfer.progress import Reporter
from imagefs.transfer.pull import pull
from tests.support.built_images import OCI_INDEX, OCI_MANIFEST, BuiltImage, image, index, sha256, tar

ONE = image([tar({"a": b"1"}), tar({"b": b"2"})])
ARM = image([tar({"a": b"arm"})], architecture="arm64")
INDEX = index(
    [
        ONE.descriptor(platform={"os": "linux", "architecture": "amd64"}),
        ARM.descriptor(platform={"os": "linux", "architecture": "arm64"}),
    ]
)


@dataclass
class Answer:
    media_type: str
    raw: bytes
    digest: Digest


@dataclass
class Memory:
    """A registry client over two dicts."""

    tags: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, one: BuiltImage, tag: str | None = None) -> None:
        for blob in one.all_blobs:
            self.blobs[sha256(blob)] = blob
        if tag:
            self.tags[tag] = (OCI_MANIFEST, one.manifest)

    def manifest(self, repository: str, reference: str | Digest) -> Answer:
        self.asked.append(f"{repository} {reference}")
        if isinstance(reference, Digest):
            raw = self.blobs[str(reference)]
            return Answer(OCI_INDEX if b'"manifests"' in raw else OCI_MANIFEST, raw, reference)
        if reference not in self.tags:
            raise ManifestUnknown("manifest unknown")
        media_type, raw = self.tags[reference]
        return Answer(media_type, raw, Digest.of(raw))

    def document(self, repository: str, descriptor: Descriptor, *, limit_bytes: int) -> bytes:
        self.asked.append(f"{repository} {descriptor.digest}")
        return self.blobs[str(descriptor.digest)]

    def blob(self, repository: str, descriptor: Descriptor, received: Iterable[bytes] = ()) -> Iterator[bytes]:
        self.asked.append(f"{repository} {descriptor.digest}")
        there = list(received)
        rest = self.blobs[str(descriptor.digest)][sum(map(len, there)) :]
        return verified([*there, rest], descriptor.digest, descriptor.size, what="layer")


@pytest.fixture
def memory() -> Memory:
    memory = Memory()
    memory.put(ONE, "latest")
    memory.put(ARM)
    memory.blobs[sha256(INDEX)] = INDEX
    memory.tags["multi"] = (OCI_INDEX, INDEX)
    return memory


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(Platform, "host", classmethod(lambda cls: cls("linux", "amd64")))
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


def accept(_: Sequence[DiffId]) -> None:
    pass


def pulled(
    store: Store, memory: Memory, text: str, *, platform: str | None = None, quiet: bool = False
) -> tuple[list[str], str]:
    out, err = io.StringIO(), io.StringIO()
    pull(
        store,
        Reference.parse(text),
        client=cast("RegistryClient", memory),
        platform=Platform.parse(platform) if platform else None,
        check=accept,
        reporter=Reporter(out, err, quiet=quiet),
    )
    return out.getvalue().splitlines(), err.getvalue()


def test_the_lines_are_dockers(store: Store, memory: Memory) -> None:
    out, err = pulled(store, memory, "debian")
    first, second = (sha256(blob)[7:19] for blob in ONE.blobs)
    assert out[:4] == [
        "Using default tag: latest",
        "latest: Pulling from library/debian",
        f"{first}: Pulling fs layer",
        f"{second}: Pulling fs layer",
    ]
    assert sorted(out[4:6]) == sorted([f"{first}: Pull complete", f"{second}: Pull complete"])
    assert out[6:] == [
        f"Digest: {sha256(ONE.manifest)}",
        "Status: Downloaded newer image for debian:latest",
        "docker.io/library/debian:latest",
    ]
    assert err == ""
    out, _ = pulled(store, memory, "debian:latest")
    assert out == [
        "latest: Pulling from library/debian",
        f"{first}: Already exists",
        f"{second}: Already exists",
        f"Digest: {sha256(ONE.manifest)}",
        "Status: Image is up to date for debian:latest",
        "docker.io/library/debian:latest",
    ]


def test_quiet_prints_only_the_canonical_name(store: Store, memory: Memory) -> None:
    assert pulled(store, memory, "debian", quiet=True) == (["docker.io/library/debian:latest"], "")


def test_the_digest_of_a_multi_platform_tag_is_the_index(store: Store, memory: Memory) -> None:
    out, _ = pulled(store, memory, "debian:multi")
    assert f"Digest: {sha256(INDEX)}" in out
    stored = store.image("debian:multi")
    assert str(stored.manifest_digest) == sha256(ONE.manifest)
    assert [str(tag.digest) for tag in stored.tags] == [sha256(INDEX)]
    assert store.image(f"debian@{sha256(INDEX)}").id == stored.id


def test_another_platform_moves_the_tag(store: Store, memory: Memory) -> None:
    pulled(store, memory, "debian:multi")
    out, _ = pulled(store, memory, "debian:multi", platform="linux/arm64")
    assert "Status: Downloaded newer image for debian:multi" in out
    assert str(store.image("debian:multi").id) == sha256(ARM.config)
    with pytest.raises(NoMatchingPlatform, match="linux/amd64, linux/arm64"):
        pulled(store, memory, "debian:multi", platform="linux/s390x")


def test_a_pull_by_digest_makes_a_digest_reference(store: Store, memory: Memory) -> None:
    digest = sha256(ONE.manifest)
    out, err = pulled(store, memory, f"debian@{digest}")
    assert out[0] == f"docker.io/library/debian@{digest}: Pulling from library/debian"
    assert out[-2:] == [
        f"Status: Downloaded newer image for debian@{digest}",
        f"docker.io/library/debian@{digest}",
    ]
    assert err == ""
    stored = store.image(f"debian@{digest}")
    assert stored.tags == ()
    assert [str(name) for name in stored.digests] == [f"docker.io/library/debian@{digest}"]
    out, _ = pulled(store, memory, f"debian@{digest}")
    assert f"Status: Image is up to date for debian@{digest}" in out


def test_of_tag_and_digest_the_digest_decides_and_that_is_said(store: Store, memory: Memory) -> None:
    out, err = pulled(store, memory, f"debian:latest@{sha256(ARM.manifest)}")
    assert "'latest' is not used" in err
    assert out[-1] == f"docker.io/library/debian@{sha256(ARM.manifest)}"
    assert "latest" not in "".join(out)
    (stored,) = store.images()
    assert stored.tags == ()


def test_a_single_image_for_another_machine_is_pulled_with_a_warning(store: Store, memory: Memory) -> None:
    memory.put(ARM, "arm")
    _, err = pulled(store, memory, "debian:arm")
    assert err == "warning: debian:arm is for linux/arm64, this machine is linux/amd64\n"
    with pytest.raises(NoMatchingPlatform, match=r"no matching manifest for linux/amd64 in debian:arm.*linux/arm64"):
        pulled(store, memory, "debian:arm", platform="linux/amd64")


def test_what_is_not_there_leaves_nothing(store: Store, memory: Memory) -> None:
    with pytest.raises(ManifestUnknown):
        pulled(store, memory, "debian:none")
    assert store.images() == ()


def test_a_damaged_layer_leaves_nothing_of_itself(store: Store, memory: Memory) -> None:
    memory.blobs[sha256(ONE.blobs[1])] = ONE.blobs[1][:-1] + b"\1"
    with pytest.raises(DigestMismatch):
        pulled(store, memory, "debian")
    assert store.images() == ()
    assert not store.has_layer(DiffId(Digest.of(ONE.tars[1])))
    assert not list((store.path / "ingest").iterdir())


def test_only_what_is_needed_is_asked_for(store: Store, memory: Memory) -> None:
    pulled(store, memory, "debian:multi", platform="linux/arm64")
    assert memory.asked == [
        "library/debian multi",
        f"library/debian {sha256(ARM.manifest)}",
        f"library/debian {sha256(ARM.config)}",
        f"library/debian {sha256(ARM.blobs[0])}",
    ]
