"""Pulling from registries as they are run: with a token server, a private CA, a mirror in front; filled by others."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support import built_images
from tests.support.commands import imagefs, needs, run
from tests.support.mounts import needs_root
from tests.support.real_registry import RealRegistry, real_registry
from tests.support.token_server import self_signed, token_server

pytestmark = [pytest.mark.tools, needs("docker-registry"), needs("skopeo"), needs("openssl")]

LAYERS = [built_images.tar({"etc/hello": b"hello"}), built_images.tar({"data": bytes(range(256)) * 20_000})]
ONE = built_images.image(LAYERS, compress=False)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = built_images.layout([ONE], [ONE.descriptor(annotations={built_images.REF_NAME: "one"})])
    return built_images.write(tmp_path_factory.mktemp("layout"), files)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf")}


def tars(store: Path, reference: str) -> list[bytes]:
    with Store.open(store) as opened:
        return [opened.layer_path(diff_id).read_bytes() for diff_id in opened.image(reference).diff_ids]


def test_a_token_server_is_asked_for_what_is_pulled_and_no_more(
    layout: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    with (
        token_server(tmp_path / "tokens", {"somebody": "secret", "": ""}) as tokens,
        real_registry(tmp_path / "registry", more=tokens.configuration) as registry,
    ):
        push = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds", "somebody:secret"]
        run([*push, f"oci:{layout}:one", f"docker://{registry.host}/team/app:1"])
        tokens.given.clear()
        authfile = tmp_path / "auth.json"
        secret = base64.b64encode(b"somebody:secret").decode()
        authfile.write_text(json.dumps({"auths": {registry.host: {"auth": secret}}}))
        reference = f"{registry.host}/team/app:1"
        store = tmp_path / "store"
        imagefs("--store", store, "pull", "-q", "--authfile", authfile, reference, env=environ)
        assert tars(store, reference) == LAYERS
        assert tokens.given == [("somebody", "repository:team/app:pull")]
        listed = imagefs("tags", "--authfile", authfile, f"{registry.host}/team/app", env=environ)
        assert listed.stdout == "1\n"
        authfile.write_text(json.dumps({"auths": {registry.host: {"auth": base64.b64encode(b"a:b").decode()}}}))
        args = ("pull", "-q", "--authfile", authfile, reference)
        refused = imagefs("--store", tmp_path / "other", *args, env=environ, check=False)
        assert refused.returncode == 4
        assert "check the login" in refused.stderr
        assert "secret" not in refused.stderr


def test_a_private_authority_is_trusted_from_certs_d(layout: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    key, certificate = self_signed(tmp_path / "ca", ca=True)
    with real_registry(tmp_path / "registry", tls=(certificate, key)) as registry:
        registry.push(layout, "one", "team/app:1")
        reference = f"{registry.host}/team/app:1"
        args = ("--store", tmp_path / "store", "pull", "-q", "--tls-verify=true", reference)
        refused = imagefs(*args, env=environ, check=False)
        assert refused.returncode == 3
        assert f"put its CA into /etc/containers/certs.d/{registry.host}/ca.crt" in refused.stderr
        folder = tmp_path / "home/.config/containers/certs.d" / registry.host
        folder.mkdir(parents=True)
        shutil.copy(certificate, folder / "ca.crt")
        imagefs(*args, env=environ)
        assert tars(tmp_path / "store", reference) == LAYERS


def test_a_pull_through_mirror_serves_what_it_does_not_hold_yet(
    layout: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    with real_registry(tmp_path / "origin") as origin:
        origin.push(layout, "one", "team/app:1")
        proxy = f"proxy: {{remoteurl: 'http://{origin.host}'}}\n"
        with real_registry(tmp_path / "mirror", more=proxy) as mirror:
            Path(environ["CONTAINERS_REGISTRIES_CONF"]).write_text(
                f'[[registry]]\nlocation = "{origin.host}"\n[[registry.mirror]]\nlocation = "{mirror.host}"\n'
            )
            reference = f"{origin.host}/team/app:1"
            args = ("--store", tmp_path / "store", "--debug", "pull", reference)
            done = imagefs(*args, env=environ)
            assert tars(tmp_path / "store", reference) == LAYERS
            assert f"http://{mirror.host}/v2/team/app/manifests/1: 200" in done.stderr
            assert f"http://{origin.host}/v2/team" not in done.stderr


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with real_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_what_skopeo_pushes_is_pulled(layout: Path, tmp_path: Path, environ: dict[str, str], compression: str) -> None:
    how = ["--dest-compress", "--dest-compress-format", compression] if compression != "none" else []
    with real_registry(tmp_path / "registry") as registry:  # skopeo would use what another has in another compression
        reference = f"{registry.host}/app:1"
        push = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *how]
        run([*push, f"oci:{layout}:one", f"docker://{reference}"])
        raw = run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"]).stdout
        kinds = {one["mediaType"].rpartition("+")[2] for one in json.loads(raw)["layers"]}
        assert compression == "none" or kinds == {compression}
        imagefs("--store", tmp_path / "store", "pull", "-q", reference, env=environ)
        assert tars(tmp_path / "store", reference) == LAYERS


@needs_root
@needs("buildah")
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_buildah_pushes_is_pulled(
    registry: RealRegistry, tmp_path: Path, environ: dict[str, str], compression: str
) -> None:
    buildah: list[str | Path] = ["buildah", "--root", tmp_path / "root", "--runroot", tmp_path / "run"]
    buildah += ["--storage-driver", "vfs"]
    (tmp_path / "file").write_bytes(b"from buildah" * 1000)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /etc/file\n")
    reference = f"{registry.host}/buildah/{compression}:1"
    try:
        run([*buildah, "bud", "-t", reference, tmp_path])
        run([*buildah, "push", "--tls-verify=false", "--compression-format", compression, reference])
    finally:
        run([*buildah, "rmi", "--all", "--force"], check=False)
    imagefs("--store", tmp_path / "store", "pull", "-q", reference, env=environ)
    (tar,) = tars(tmp_path / "store", reference)
    assert b"from buildah" * 1000 in tar
