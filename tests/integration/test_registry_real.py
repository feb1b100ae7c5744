"""The registry client against a registry that others wrote: docker-registry, filled by skopeo."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import ManifestUnknown, Unauthorized
from imagefs.oci.config import MAX_CONFIG_BYTES
from imagefs.oci.manifest import ImageIndex, Manifest, parse_manifest
from imagefs.registry.client import RegistryClient
from imagefs.registry.retry import RetryPolicy
from tests.support import built_images
from tests.support.commands import needs
from tests.support.real_registry import PASSWORD, USER, RealRegistry, real_registry

pytestmark = [pytest.mark.tools, needs("docker-registry"), needs("skopeo")]

LAYERS = [built_images.tar({"etc/hello": b"hello"}), built_images.tar({"data": bytes(range(256)) * 20_000})]
ONE = built_images.image(LAYERS, compress=False)
ARM = built_images.image(LAYERS[:1], architecture="arm64")
INDEX = built_images.index(
    [
        ONE.descriptor(platform={"os": "linux", "architecture": "amd64"}),
        ARM.descriptor(platform={"os": "linux", "architecture": "arm64"}),
    ]
)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with one image for one platform and one for two."""
    multi = {"mediaType": built_images.OCI_INDEX, "digest": built_images.sha256(INDEX), "size": len(INDEX)}
    descriptors = [
        ONE.descriptor(annotations={built_images.REF_NAME: "one"}),
        {**multi, "annotations": {built_images.REF_NAME: "multi"}},
    ]
    files = built_images.layout([ONE, ARM], descriptors, documents=[INDEX])
    return built_images.write(tmp_path_factory.mktemp("layout"), files)


@pytest.fixture(scope="module", params=[False, True], ids=["anonymous", "htpasswd"])
def registry(
    request: pytest.FixtureRequest, layout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealRegistry]:
    with real_registry(tmp_path_factory.mktemp("registry"), password=request.param) as registry:
        registry.push(layout, "one", "team/app:1.0")
        registry.push(layout, "multi", "team/app:multi")
        yield registry


@pytest.fixture
def client(registry: RealRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryClient]:
    monkeypatch.setenv("HOME", str(tmp_path))
    authfile = tmp_path / "auth.json"
    entry = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    authfile.write_text(json.dumps({"auths": {registry.host: entry}}))
    client = RegistryClient(registry.host, authfile=authfile, retry=RetryPolicy(sleep=lambda _: None))
    yield client
    client.close()


def test_an_image_is_pulled_byte_for_byte(client: RegistryClient) -> None:
    found = client.manifest("team/app", "1.0")
    assert found.raw == ONE.manifest
    manifest = parse_manifest(found.raw, media_type=found.media_type)
    assert isinstance(manifest, Manifest)
    assert client.document("team/app", manifest.config, limit_bytes=MAX_CONFIG_BYTES) == ONE.config
    for layer, blob in zip(manifest.layers, ONE.blobs, strict=True):
        assert b"".join(client.blob("team/app", layer)) == blob


def test_an_index_and_what_it_lists_are_pulled(client: RegistryClient) -> None:
    found = client.manifest("team/app", "multi")
    assert found.raw == INDEX
    index = parse_manifest(found.raw, media_type=found.media_type)
    assert isinstance(index, ImageIndex)
    for descriptor, built in zip(index.manifests, (ONE, ARM), strict=True):
        assert client.manifest("team/app", descriptor.digest).raw == built.manifest


def test_tags_are_listed(client: RegistryClient) -> None:
    assert sorted(client.tags("team/app")) == ["1.0", "multi"]


def test_what_is_not_there_is_unknown(client: RegistryClient) -> None:
    with pytest.raises(ManifestUnknown, match=r"manifest for .*/team/app:9 not found: manifest unknown"):
        client.manifest("team/app", "9")
    with pytest.raises(ManifestUnknown):
        client.manifest("no/such", "1")
    with pytest.raises(ManifestUnknown, match=r"repository .*/no/such not found: name unknown"):
        list(client.tags("no/such"))


@pytest.mark.parametrize("registry", [True], indirect=True, ids=["htpasswd"])
def test_a_wrong_password_is_refused(registry: RealRegistry, tmp_path: Path) -> None:
    authfile = tmp_path / "auth.json"
    for entries in ({}, {registry.host: {"username": USER, "password": "wrong"}}):
        authfile.write_text(json.dumps({"auths": entries}))
        client = RegistryClient(registry.host, authfile=authfile)
        with pytest.raises(Unauthorized, match=r"pull access denied .* unauthorized: authentication required"):
            client.manifest("team/app", "1.0")
        client.close()
