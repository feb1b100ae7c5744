"""Which manifest of an index is taken."""

import json
from collections.abc import Generator
from typing import Any

import pytest

from imagefs.errors import InvalidManifest, NoMatchingPlatform, UnsupportedMediaType
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.oci.platform import Platform
from imagefs.transfer.selection import Selected, select_image
from tests.support.built_images import OCI_INDEX, OCI_MANIFEST, BuiltImage, dump, image, index, sha256


class Shelf:
    """A source over a dict, which counts what it is asked."""

    label = "shelf"

    def __init__(self, *contents: bytes) -> None:
        self.contents = {sha256(content): content for content in contents}
        self.asked: list[str] = []

    def has(self, descriptor: Descriptor) -> bool:
        return str(descriptor.digest) in self.contents

    def document(self, descriptor: Descriptor, *, limit_bytes: int, what: str) -> bytes:
        self.asked.append(str(descriptor.digest))
        return self.contents[str(descriptor.digest)]

    def blob(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        raise AssertionError("no layer is needed to choose an image")


def shelf(*images: BuiltImage, documents: tuple[bytes, ...] = ()) -> Shelf:
    return Shelf(*documents, *(document for one in images for document in (one.manifest, one.config)))


def descriptor(raw: bytes, media_type: str = OCI_INDEX) -> Descriptor:
    return Descriptor(media_type, Digest.of(raw), len(raw))


def chosen(source: Shelf, root: Descriptor, platform: str | None = None) -> Selected:
    return select_image(source, (root,), platform=Platform.parse(platform) if platform else None)


def platform(os: str, architecture: str, variant: str = "") -> dict[str, Any]:
    return {"platform": {"os": os, "architecture": architecture, **({"variant": variant} if variant else {})}}


AMD64 = image([], architecture="amd64")
ARM64 = image([], architecture="arm64")
S390X = image([], architecture="s390x")
THREE = index(
    [
        AMD64.descriptor(**platform("linux", "amd64")),
        ARM64.descriptor(**platform("linux", "arm64", "v8")),
        S390X.descriptor(**platform("linux", "s390x")),
    ]
)


def test_the_wanted_platform_is_taken_and_nothing_else_is_asked_for() -> None:
    source = shelf(AMD64, ARM64, S390X, documents=(THREE,))
    assert chosen(source, descriptor(THREE), "linux/arm64").manifest.raw == ARM64.manifest
    assert source.asked == [sha256(THREE), sha256(ARM64.manifest), sha256(ARM64.config)]


def test_no_matching_platform_lists_what_there_is() -> None:
    with pytest.raises(NoMatchingPlatform) as caught:
        chosen(shelf(AMD64, ARM64, S390X, documents=(THREE,)), descriptor(THREE), "linux/riscv64")
    assert caught.value.offered == ("linux/amd64", "linux/arm64/v8", "linux/s390x")


def test_an_explicit_platform_does_not_fall_back_to_another_architecture() -> None:
    i386 = image([], architecture="386")
    raw = index([i386.descriptor(**platform("linux", "386"))])
    with pytest.raises(NoMatchingPlatform):
        chosen(shelf(i386, documents=(raw,)), descriptor(raw), "linux/amd64")


def test_attestations_and_unknown_things_are_passed_over() -> None:
    attestation = image([], architecture="amd64", note="attestation")
    raw = index(
        [
            attestation.descriptor(**platform("unknown", "unknown")),
            attestation.descriptor(annotations={"vnd.docker.reference.type": "attestation-manifest"}),
            {"mediaType": "application/vnd.example+json", "digest": sha256(b"x"), "size": 1},
            ARM64.descriptor(**platform("linux", "arm64")),
        ]
    )
    source = shelf(attestation, ARM64, documents=(raw, b"x"))
    assert chosen(source, descriptor(raw), "linux/arm64").manifest.raw == ARM64.manifest
    with pytest.raises(NoMatchingPlatform) as caught:
        chosen(source, descriptor(raw), "linux/s390x")
    assert caught.value.offered == ("linux/arm64",)


def test_entries_without_platform_are_matched_by_their_configs() -> None:
    raw = index([AMD64.descriptor(), ARM64.descriptor()])
    source = shelf(AMD64, ARM64, documents=(raw,))
    assert chosen(source, descriptor(raw), "linux/arm64").manifest.raw == ARM64.manifest
    with pytest.raises(NoMatchingPlatform) as caught:
        chosen(source, descriptor(raw), "linux/s390x")
    assert caught.value.offered == ("linux/amd64", "linux/arm64")


def test_an_index_inside_an_index_is_followed() -> None:
    outer = index([{"mediaType": OCI_INDEX, "digest": sha256(THREE), "size": len(THREE)}])
    source = shelf(AMD64, ARM64, S390X, documents=(THREE, outer))
    assert chosen(source, descriptor(outer), "linux/s390x").manifest.raw == S390X.manifest


def test_indexes_nested_too_deeply_are_refused() -> None:
    documents = [THREE]
    for _ in range(10):
        inner = documents[-1]
        documents.append(index([{"mediaType": OCI_INDEX, "digest": sha256(inner), "size": len(inner)}]))
    source = shelf(AMD64, ARM64, S390X, documents=tuple(documents))
    with pytest.raises(InvalidManifest, match="nests"):
        chosen(source, descriptor(documents[-1]), "linux/amd64")
    assert len(source.asked) < 10


def test_an_index_of_many_indexes_is_refused() -> None:
    inner = [index([AMD64.descriptor(annotations={"n": str(n)})]) for n in range(200)]
    outer = index([{"mediaType": OCI_INDEX, "digest": sha256(raw), "size": len(raw)} for raw in inner])
    source = shelf(AMD64, documents=(outer, *inner))
    with pytest.raises(InvalidManifest, match="indexes"):
        chosen(source, descriptor(outer), "linux/amd64")
    assert len(source.asked) < 100


def test_what_the_source_does_not_have_is_not_chosen() -> None:
    source = shelf(ARM64, documents=(THREE,))
    with pytest.raises(NoMatchingPlatform) as caught:
        chosen(source, descriptor(THREE), "linux/amd64")
    assert caught.value.offered == ("linux/arm64/v8",)


def test_a_single_image_for_another_machine_is_taken_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Platform, "host", classmethod(lambda cls: cls("linux", "amd64")))
    root = descriptor(S390X.manifest, OCI_MANIFEST)
    assert chosen(shelf(S390X), root).mismatch
    assert not chosen(shelf(S390X), root, "linux/s390x").mismatch
    with pytest.raises(NoMatchingPlatform, match=r"linux/arm64 .* has: linux/s390x"):
        chosen(shelf(S390X), root, "linux/arm64")


def test_a_root_of_unknown_type_is_recognised_by_its_form() -> None:
    source = shelf(AMD64, ARM64, S390X, documents=(THREE,))
    assert chosen(source, descriptor(THREE, ""), "linux/amd64").manifest.raw == AMD64.manifest


def test_layers_and_diff_ids_must_be_as_many() -> None:
    lying = image([b"a", b"b"], diff_ids=[sha256(b"a")])
    with pytest.raises(InvalidManifest, match="layers from manifest don't match image configuration"):
        chosen(shelf(lying), descriptor(lying.manifest, OCI_MANIFEST))


def test_an_index_listed_as_a_manifest_is_refused() -> None:
    untyped = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    raw = index(
        [{"mediaType": OCI_MANIFEST, "digest": sha256(untyped), "size": len(untyped), **platform("linux", "amd64")}]
    )
    with pytest.raises((InvalidManifest, UnsupportedMediaType)):
        chosen(shelf(documents=(raw, untyped)), descriptor(raw), "linux/amd64")


def test_an_artifact_is_refused_with_its_kind() -> None:
    config = b"{}"
    chart = "application/vnd.cncf.helm.config.v1+json"
    raw = dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": chart, "digest": sha256(config), "size": len(config)},
            "layers": [],
        }
    )
    with pytest.raises(UnsupportedMediaType, match="helm"):
        chosen(shelf(documents=(raw, config)), descriptor(raw, OCI_MANIFEST))


@pytest.mark.parametrize(("below", "is_refused"), [(3, False), (4, True)])
def test_indexes_nest_up_to_the_bound(below: int, is_refused: bool) -> None:
    documents = [index([AMD64.descriptor(**platform("linux", "amd64"))])]
    for _ in range(below):
        inner = documents[-1]
        documents.append(index([{"mediaType": OCI_INDEX, "digest": sha256(inner), "size": len(inner)}]))
    source = shelf(AMD64, documents=tuple(documents))
    if is_refused:
        with pytest.raises(InvalidManifest, match="nests more than 4 levels"):
            chosen(source, descriptor(documents[-1]), "linux/amd64")
    else:
        assert chosen(source, descriptor(documents[-1]), "linux/amd64").manifest.raw == AMD64.manifest


@pytest.mark.parametrize(("count", "is_refused"), [(63, False), (64, True)])
def test_an_index_leads_to_a_bounded_number_of_indexes(count: int, is_refused: bool) -> None:
    entry = AMD64.descriptor(**platform("linux", "amd64"))
    inner = [index([{**entry, "annotations": {"n": str(n)}}]) for n in range(count)]
    outer = index([{"mediaType": OCI_INDEX, "digest": sha256(raw), "size": len(raw)} for raw in inner])
    source = shelf(AMD64, documents=(outer, *inner))
    if is_refused:
        with pytest.raises(InvalidManifest, match="64 indexes"):
            chosen(source, descriptor(outer), "linux/amd64")
    else:
        assert chosen(source, descriptor(outer), "linux/amd64").manifest.raw == AMD64.manifest
