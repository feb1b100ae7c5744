"""``imagefs pull`` from a real registry (docker's distribution), through the command line."""

import hashlib
import http.client
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from imagefs.cli.main import main
from imagefs.errors import EXIT_INTERRUPTED
from imagefs.oci.digest import Digest
from imagefs.oci.platform import Platform
from imagefs.store.store import Store
from tests.support.built_images import (
    OCI_INDEX,
    OCI_MANIFEST,
    BuiltImage,
    image,
    index,
    link,
    sha256,
    tar,
    tar_of,
)
from tests.support.commands import needs
from tests.support.data import data_dir, needs_data

needs_registry = needs("docker-registry")
ONE = image([tar({"etc/base": b"base"}), tar({"etc/top": b"top", "etc/.wh.base": b""})])
ARM = image([tar({"etc/arm": b"arm"})], architecture="arm64")
INDEX = index(
    [
        ONE.descriptor(platform={"os": "linux", "architecture": "amd64"}),
        ARM.descriptor(platform={"os": "linux", "architecture": "arm64"}),
    ]
)


class Registry:
    """A running registry, and how to put things into it."""

    def __init__(self, port: int, root: Path) -> None:
        self.host = f"localhost:{port}"
        self._port = port
        self._root = root

    def push(self, one: BuiltImage, repository: str, tag: str) -> None:
        for blob in (one.config, *one.blobs):
            self._blob(repository, blob)
        self.push_manifest(repository, tag, OCI_MANIFEST, one.manifest)

    def push_manifest(self, repository: str, tag: str, media_type: str, raw: bytes) -> None:
        self._call("PUT", f"/v2/{repository}/manifests/{tag}", raw, {"Content-Type": media_type})

    def damage(self, blob: bytes) -> None:
        """Change one byte of a blob on the registry's disk."""
        hex_ = hashlib.sha256(blob).hexdigest()
        path = self._root / "docker/registry/v2/blobs/sha256" / hex_[:2] / hex_ / "data"
        path.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))

    def _blob(self, repository: str, blob: bytes) -> None:
        location = self._call("POST", f"/v2/{repository}/blobs/uploads/", b"", {})
        separator = "&" if "?" in location else "?"
        path = "/" + location.split("/", 3)[3]
        self._call("PUT", f"{path}{separator}digest={sha256(blob)}", blob, {"Content-Type": "application/octet-stream"})

    def _call(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> str:
        connection = http.client.HTTPConnection("localhost", self._port, timeout=20)
        try:
            connection.request(method, path, body, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status in (201, 202), (answer.status, content)
            return answer.headers["Location"]
        finally:
            connection.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n"
    )
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield Registry(port, folder / "data")
        finally:
            process.terminate()


class Tool:
    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = store
        self._capsys = capsys

    def pull(self, *argv: str) -> tuple[int, list[str], str]:
        status = main(["--store", str(self.store), "pull", *argv])
        captured = self._capsys.readouterr()
        return status, captured.out.splitlines(), captured.err

    def left_behind(self) -> list[Path]:
        return [
            path for kind in ("ingest", "layers", "blobs") for path in (self.store / kind).rglob("*") if path.is_file()
        ]


@pytest.fixture
def tool(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.delenv("DOCKER_DEFAULT_PLATFORM", raising=False)
    monkeypatch.setattr(Platform, "host", classmethod(lambda cls: cls("linux", "amd64")))
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials of whoever runs this
    return Tool(tmp_path / "store", capsys)


@needs_registry
def test_an_image_is_pulled_and_pulled_again(tool: Tool, registry: Registry) -> None:
    registry.push(ONE, "app/one", "latest")
    status, out, err = tool.pull(f"{registry.host}/app/one")
    assert (status, err) == (0, "")
    assert out[:2] == ["Using default tag: latest", "latest: Pulling from app/one"]
    assert out[-3:] == [
        f"Digest: {sha256(ONE.manifest)}",
        f"Status: Downloaded newer image for {registry.host}/app/one:latest",
        f"{registry.host}/app/one:latest",
    ]
    with Store.open(tool.store) as store:
        assert str(store.image(f"{registry.host}/app/one").id) == sha256(ONE.config)
    status, out, _ = tool.pull("-q", f"{registry.host}/app/one:latest")
    assert (status, out) == (0, [f"{registry.host}/app/one:latest"])


@needs_registry
def test_the_platform_of_an_index_is_pulled(tool: Tool, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.push(ONE, "app/multi", "amd64")
    registry.push(ARM, "app/multi", "arm64")
    registry.push_manifest("app/multi", "1", OCI_INDEX, INDEX)
    name = f"{registry.host}/app/multi:1"
    status, out, _ = tool.pull(name)
    assert status == 0
    assert f"Digest: {sha256(INDEX)}" in out
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    assert tool.pull(name)[0] == 0
    with Store.open(tool.store) as store:
        assert str(store.image(name).id) == sha256(ARM.config)
    status, _, err = tool.pull("--platform", "linux/s390x", name)
    assert status == 5
    assert "it has: linux/amd64, linux/arm64" in err
    status, out, _ = tool.pull(f"{registry.host}/app/multi@{sha256(ONE.manifest)}", "--platform", "linux/amd64")
    assert (status, out[-1]) == (0, f"{registry.host}/app/multi@{sha256(ONE.manifest)}")


@needs_registry
def test_of_several_references_the_good_ones_are_pulled_and_the_first_error_counts(
    tool: Tool, registry: Registry
) -> None:
    registry.push(ONE, "app/several", "1")
    name = f"{registry.host}/app/several"
    status, out, err = tool.pull("-q", f"{name}:none", f"{name}:1", f"{registry.host}/app/nothing:1")
    assert status == 5
    assert out == [f"{name}:1"]
    assert len(err.splitlines()) == 2
    assert "none" in err.splitlines()[0]


@needs_registry
def test_a_blob_that_the_registry_damaged_is_refused(tool: Tool, registry: Registry) -> None:
    one = image([tar({"a": b"sound"}), tar({"b": b"to be damaged"})])
    registry.push(one, "app/damaged", "1")
    registry.damage(one.blobs[1])
    status, _, err = tool.pull(f"{registry.host}/app/damaged:1")
    assert status == 6
    assert sha256(one.blobs[1]) in err
    assert not any(path.name.startswith(Digest.of(one.tars[1]).hex) for path in tool.left_behind())
    assert not list((tool.store / "ingest").iterdir())


@needs_registry
def test_an_image_whose_union_cannot_be_is_refused(tool: Tool, registry: Registry) -> None:
    one = image([tar_of([link("x", "nowhere", hard=True)])])
    registry.push(one, "app/bad", "1")
    status, _, err = tool.pull(f"{registry.host}/app/bad:1")
    assert status == 6
    assert "hard link" in err
    assert tool.left_behind() == []


@needs_registry
@needs_data
def test_skopeo_and_imagefs_agree_on_what_was_pushed(tool: Tool, registry: Registry) -> None:
    folder = data_dir()
    assert folder is not None
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    for name, tag in (("small", "v2"), ("small-zstd", "v2"), ("alpine", "3.20")):
        target = f"{registry.host}/real/{name}:{tag}"
        copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
        subprocess.run([*copy, f"oci:{folder}/images/{name}:{tag}", f"docker://{target}"], check=True, timeout=120)
        status, out, err = tool.pull("-q", target)
        assert (status, out, err) == (0, [target], "")


# ---- interruption ----


class _Endless(BaseHTTPRequestHandler):
    """A registry whose one layer begins and never ends."""

    protocol_version = "HTTP/1.1"
    begun = threading.Event()
    over = threading.Event()

    def do_GET(self) -> None:
        served = {f"/v2/x/manifests/{tag}": (OCI_MANIFEST, ONE.manifest) for tag in ("1", sha256(ONE.manifest))} | {
            f"/v2/x/blobs/{sha256(ONE.config)}": ("application/octet-stream", ONE.config),
            "/v2/": ("text/plain", b""),
        }
        if self.path in served:
            media_type, body = served[self.path]
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(ONE.blobs[0])))
        self.end_headers()
        self.wfile.write(ONE.blobs[0][:20])
        self.wfile.flush()
        self.begun.set()
        self.over.wait(timeout=60)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def test_an_interrupt_ends_a_pull_that_waits_for_the_network(tmp_path: Path) -> None:
    with _Server(("127.0.0.1", 0), _Endless) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        name = f"127.0.0.1:{server.server_address[1]}/x:1"
        # A background process may have inherited SIGINT as ignored, and Python then leaves it so.
        command = ["env", "--default-signal=INT", sys.executable, "-m", "imagefs", "--store", str(tmp_path / "store")]
        command += ["pull", "--tls-verify=false"]
        with subprocess.Popen(
            [*command, "--platform", "linux/amd64", name],
            env={**os.environ, "HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert _Endless.begun.wait(timeout=30)
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=30)
            finally:
                _Endless.over.set()
                process.kill()
        server.shutdown()
    assert process.returncode == EXIT_INTERRUPTED
    assert err == "imagefs: interrupted; what was downloaded is kept, the next pull goes on there\n"
    with Store.open(tmp_path / "store") as store:
        assert store.images() == ()
        store.sweep()
    assert not list((tmp_path / "store" / "ingest").iterdir())


@needs_registry
def test_a_dry_run_makes_no_store(tool: Tool, registry: Registry) -> None:
    registry.push(ONE, "app/dry", "1")
    status, out, err = tool.pull("--dry-run", "-q", f"{registry.host}/app/dry:1")
    assert (status, err) == (0, "")
    assert out[-1].startswith(f"Would download {sum(map(len, ONE.blobs))} bytes")
    assert not tool.store.exists()
