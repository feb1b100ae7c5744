import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import InvalidManifest, UnsupportedMediaType
from imagefs.oci import media_type as types
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.oci.manifest import (
    MAX_INDEX_ENTRIES,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    ImageIndex,
    Manifest,
    parse_manifest,
)
from imagefs.oci.platform import Platform
from tests.support.data import data_dir, needs_data

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
HEX = "a" * 64


def descriptor(media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{HEX}", "size": 3, **more}


def manifest(**changes: object) -> dict[str, object]:
    """Return a valid OCI manifest with *changes*; a change to ``...`` leaves the field out."""
    document = {
        "schemaVersion": 2,
        "mediaType": types.OCI_MANIFEST,
        "config": descriptor(types.OCI_CONFIG),
        "layers": [descriptor(OCI_LAYER)],
        **changes,
    }
    return {key: value for key, value in document.items() if value is not ...}


def index(*manifests: object, **changes: object) -> dict[str, object]:
    document = {"schemaVersion": 2, "mediaType": types.OCI_INDEX, "manifests": list(manifests), **changes}
    return {key: value for key, value in document.items() if value is not ...}


def parse(document: object, media_type: str | None = None) -> Manifest | ImageIndex:
    return parse_manifest(json.dumps(document).encode(), media_type=media_type)


# ---- what is understood ----


def test_a_manifest_is_kept_verbatim_with_its_digest() -> None:
    raw = json.dumps(manifest(annotations={"b": "1", "a": "2"}), indent=3).encode()
    parsed = parse_manifest(raw)
    assert isinstance(parsed, Manifest)
    assert parsed.raw == raw
    assert parsed.digest == Digest.of(raw)
    assert parsed.config == Descriptor(types.OCI_CONFIG, Digest("sha256", HEX), 3)
    assert parsed.layers == (Descriptor(OCI_LAYER, Digest("sha256", HEX), 3),)
    assert parsed.annotations == (("b", "1"), ("a", "2"))
    assert parse_manifest(raw, algorithm="sha512").digest == Digest.of(raw, "sha512")


def test_an_index_keeps_order_and_types_it_does_not_know() -> None:
    platform = {"os": "linux", "architecture": "arm", "variant": "v7", "os.version": "1", "os.features": ["a"]}
    parsed = parse(
        index(
            descriptor("application/x-unknown; v=1", platform=platform),
            descriptor(types.OCI_INDEX, platform=None),
            descriptor(types.OCI_MANIFEST, platform={}, artifactType="a/b", annotations={"k": "v"}),
        )
    )
    assert isinstance(parsed, ImageIndex)
    unknown, nested, plain = parsed.manifests
    assert unknown.platform == Platform("linux", "arm", "v7", "1", ("a",))
    assert (nested.media_type, nested.platform) == (types.OCI_INDEX, None)
    assert (plain.platform, plain.artifact_type) == (None, "a/b")
    assert (plain.annotation("k"), plain.annotation("x")) == ("v", None)


@pytest.mark.parametrize("announced", [None, "", "application/json", "text/plain; charset=utf-8"])
def test_a_document_without_media_type_is_known_by_its_form(announced: str | None) -> None:
    assert parse(manifest(mediaType=...), announced).media_type == types.OCI_MANIFEST
    assert parse(index(mediaType=...), announced).media_type == types.OCI_INDEX


def test_a_document_without_media_type_is_what_it_was_announced_as() -> None:
    parsed = parse(manifest(mediaType=...), types.DOCKER_MANIFEST + "; charset=utf-8")
    assert parsed.media_type == types.DOCKER_MANIFEST


@pytest.mark.parametrize(
    "layer",
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar+something-new",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_layers_of_both_families_and_of_any_compression_are_understood(layer: str) -> None:
    parsed = parse(manifest(layers=[descriptor(layer)]))
    assert isinstance(parsed, Manifest)
    assert types.is_foreign_layer(layer) == ("foreign" in layer or "nondistributable" in layer)


@pytest.mark.parametrize("config", [types.DOCKER_CONFIG, "application/octet-stream", "text/html"])
def test_configs_of_docker_and_of_early_registries_are_understood(config: str) -> None:
    parsed = parse(manifest(config=descriptor(config), mediaType=types.DOCKER_MANIFEST))
    assert isinstance(parsed, Manifest)
    assert parsed.config.media_type == config


def test_an_image_may_have_no_layers_and_sha512_digests() -> None:
    config = {"mediaType": types.OCI_CONFIG, "digest": "sha512:" + "0" * 128, "size": 0}
    parsed = parse(manifest(layers=[], config=config))
    assert isinstance(parsed, Manifest)
    assert parsed.config.digest.algorithm == "sha512"


def test_only_web_urls_are_kept() -> None:
    urls = ["https://a/b", "file:///etc/passwd", "HTTP://c", "ftp://d", "//e"]
    parsed = parse(manifest(layers=[descriptor(OCI_LAYER, urls=urls)]))
    assert isinstance(parsed, Manifest)
    assert parsed.layers[0].urls == ("https://a/b", "HTTP://c")


def test_embedded_data_is_verified() -> None:
    def embedding(data: object, content: bytes = b"{}") -> dict[str, object]:
        digest = str(Digest.of(content))
        return manifest(config={"mediaType": types.OCI_CONFIG, "digest": digest, "size": len(content), "data": data})

    parsed = parse(embedding(base64.b64encode(b"{}").decode()))
    assert isinstance(parsed, Manifest)
    assert parsed.config.data == b"{}"
    for data, reason in (
        (base64.b64encode(b"[]").decode(), "as the digest of 'data'"),
        (base64.b64encode(b"{} ").decode(), "expected 2 bytes in 'data', found 3"),
        ("e30", "base64"),
        ("e3 0=", "base64"),
        ("é", "base64"),
        (3, "a string as 'data'"),
    ):
        with pytest.raises(InvalidManifest) as caught:
            parse(embedding(data))
        assert reason in str(caught.value)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "expected a JSON object, found an array"),
        ("x", "found the string 'x'"),
        (None, "found nothing"),
        ({}, "expected 'manifests', or 'layers' and 'config', found neither"),
        (manifest(manifests=[]), "found both"),
        (index(layers=[]), "found both"),
        (index(config=None), "found both"),
        (manifest(schemaVersion=...), "an integer as 'schemaVersion', found nothing"),
        (manifest(schemaVersion=3), "expected 2 as 'schemaVersion', found 3"),
        (manifest(schemaVersion="2"), "an integer as 'schemaVersion', found the string '2'"),
        (manifest(schemaVersion=2.0), "an integer as 'schemaVersion'"),
        (manifest(mediaType=3), "a string as 'mediaType'"),
        (manifest(mediaType=types.OCI_INDEX), "invalid index: expected 'manifests', found none"),
        (manifest(config=...), "invalid config descriptor: expected a JSON object, found nothing"),
        (manifest(layers=...), "expected 'layers', found none"),
        (manifest(layers={}), "expected an array as 'layers'"),
        (manifest(layers=[3]), "invalid manifest (layers[0]): expected a JSON object, found the number 3"),
        (manifest(layers=[descriptor(OCI_LAYER)] * (MAX_LAYERS + 1)), "expected at most 1024 values in 'layers'"),
        (index(*[descriptor("a/b")] * (MAX_INDEX_ENTRIES + 1)), "expected at most 4096 values"),
        (index(descriptor("")), "expected a media type"),
        (index(descriptor("a/b\n")), "expected a media type"),
        (index(descriptor("a/b", annotations={"a": 1})), "a string as 'annotations.a'"),
        (index(descriptor("a/b", platform="linux")), "invalid platform of index (manifests[0])"),
        (index(descriptor("a/b", platform={"os": 1})), "a string as 'os'"),
        (index(descriptor("a/b", urls=[1])), "a string as 'urls[0]'"),
    ],
)
def test_documents_that_break_the_rules_are_refused(document: object, reason: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        parse(document)
    assert reason in str(caught.value)


@pytest.mark.parametrize("size", [-1, 2**63, 1.5, "3", None, True, 10**30])
def test_impossible_sizes_are_refused(size: object) -> None:
    with pytest.raises(InvalidManifest):
        parse(manifest(layers=[descriptor(OCI_LAYER, size=size)]))


@pytest.mark.parametrize(
    "digest", ["sha256:../../etc/passwd", f"sha256:{HEX[1:]}", f"sha256:{HEX.upper()}", "", f"md5:{HEX[:32]}", None, 7]
)
def test_impossible_digests_are_refused_wherever_they_stand(digest: object) -> None:
    bad = descriptor(OCI_LAYER, digest=digest)
    for document in (manifest(layers=[bad]), manifest(config=bad), index(bad)):
        with pytest.raises(InvalidManifest):
            parse(document)


def test_the_document_must_be_what_it_was_announced_as() -> None:
    assert parse(manifest(), types.OCI_MANIFEST + ";x=y") == parse(manifest())
    for announced in (types.OCI_INDEX, types.DOCKER_MANIFEST, "application/vnd.other"):
        with pytest.raises(InvalidManifest, match="announced"):
            parse(manifest(), announced)
    with pytest.raises(InvalidManifest, match="expected 'manifests'"):
        parse(manifest(mediaType=...), types.OCI_INDEX)


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(InvalidManifest, match="expected at most"):
        parse_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize(
    ("document", "announced"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, None),
        ({"schemaVersion": 1, "fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ({"schemaVersion": 1}, "application/vnd.docker.distribution.manifest.v1+json"),
    ],
)
def test_the_first_manifest_format_is_refused_with_advice(document: object, announced: str | None) -> None:
    with pytest.raises(UnsupportedMediaType, match="schema 1 support has been removed") as caught:
        parse(document, announced)
    assert "ask the image's author" in str(caught.value)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (
            manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")),
            "it is a helm chart, not a filesystem",
        ),
        (manifest(config=descriptor("application/vnd.docker.plugin.v1+json")), "it is a docker plugin, not"),
        (
            manifest(config=descriptor(types.OCI_EMPTY), artifactType="application/vnd.in-toto+json"),
            "is an attestation",
        ),
        (manifest(config=descriptor(types.OCI_EMPTY), artifactType="a/b"), "type a/b: it is something else, not"),
        (manifest(config=descriptor(types.OCI_EMPTY), layers=[]), "it is an artifact, not a filesystem image"),
        (manifest(layers=[descriptor("application/vnd.in-toto+json")]), "it is an attestation, not a layer"),
        (manifest(layers=[descriptor("application/wasm")]), "it is a WebAssembly module, not a layer"),
        (manifest(layers=[descriptor(OCI_LAYER + "+encrypted")]), "the layer is encrypted"),
        (manifest(mediaType="application/vnd.oci.artifact.manifest.v1+json"), "it is something else, not a filesystem"),
    ],
)
def test_what_is_no_image_is_named(document: object, reason: str) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        parse(document)
    assert reason in str(caught.value)


def test_the_accept_header_names_what_is_understood() -> None:
    assert all(types.is_index(name) or types.is_manifest(name) for name in types.ACCEPT)
    assert len(types.ACCEPT) == 4


@needs_data
def test_every_document_of_real_layouts_is_understood() -> None:
    folder = data_dir()
    assert folder is not None
    seen = 0
    for layout in sorted(path.parent for path in (folder / "images").glob("*/index.json")):
        pending = [parse_manifest((layout / "index.json").read_bytes())]
        while pending:
            document = pending.pop()
            seen += 1
            if isinstance(document, Manifest):
                continue
            for child in document.manifests:
                blob = layout / "blobs" / child.digest.algorithm / child.digest.hex
                if blob.is_file():
                    raw = blob.read_bytes()
                    assert len(raw) == child.size
                    pending.append(parse_manifest(raw, media_type=child.media_type))
                    assert pending[-1].digest == child.digest
    assert seen > 10


# ---- law ----

_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from([*types.ACCEPT, types.OCI_CONFIG, types.OCI_EMPTY, OCI_LAYER, f"sha256:{HEX}", "e30="]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "mediaType",
                    "digest",
                    "size",
                    "data",
                    "platform",
                    "os",
                    "os.features",
                    "annotations",
                    "config",
                    "layers",
                ]
            ),
            children,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_damaged = st.builds(
    lambda base, key, value: {**base, key: value},
    st.sampled_from([manifest(), index(descriptor("a/b"))]),
    st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "artifactType"]),
    _values,
)
_damaged_descriptor = st.builds(
    lambda key, value: index(descriptor("a/b", **{key: value})),
    st.sampled_from(["mediaType", "digest", "size", "data", "urls", "platform", "annotations", "artifactType"]),
    _values,
)


@given(
    st.one_of(
        st.binary(), st.one_of(_values, _damaged, _damaged_descriptor).map(lambda value: json.dumps(value).encode())
    ),
    st.one_of(st.none(), st.text(max_size=5), st.sampled_from(types.ACCEPT)),
)
@settings(max_examples=400, deadline=None)
def test_any_bytes_give_a_manifest_or_one_of_two_errors(raw: bytes, media_type: str | None) -> None:
    try:
        parsed = parse_manifest(raw, media_type=media_type)
    except (InvalidManifest, UnsupportedMediaType) as error:
        assert str(error).isprintable()  # noqa: PT017 - nothing raised is as good
    else:
        assert parsed.raw == raw
