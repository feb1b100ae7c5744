"""A server that keeps a connection busy without getting anywhere holds nobody up for long."""

import contextlib
import functools
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import EXIT_INTERRUPTED, RegistryError, RegistryUnavailable
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.registry import limits
from imagefs.registry.client import RegistryClient
from imagefs.registry.connections import LimitedTlsSocket, MessageTooLong, ReadLimit, Trickle
from imagefs.registry.retry import RetryPolicy
from tests.support.built_images import OCI_LAYER, OCI_MANIFEST, image, tar
from tests.support.commands import needs
from tests.support.registry import Fault, Handler, Registry
from tests.support.token_server import self_signed

REPOSITORY = "team/app"
IMAGE = image([tar({"etc/hello": b"hello"})])
BLOB = b"some layer"
LAYER = Descriptor(OCI_LAYER, Digest.of(BLOB), len(BLOB))
TWICE = RetryPolicy(attempts=2, sleep=lambda _: None)
SOON_S = 10.0
"""Much longer than the limits of these tests, much shorter than the real ones."""


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(limits, "HEAD_TIMEOUT_S", 0.4)
    monkeypatch.setattr(limits, "STALL_WINDOW_S", 0.4)


over_both = pytest.mark.parametrize("registry", ["http", pytest.param("https", marks=needs("openssl"))], indirect=True)


@pytest.fixture
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    pair = None
    if getattr(request, "param", "http") == "https":
        key, certificate = self_signed(tmp_path / "tls")
        pair = tmp_path / "pair.pem"
        pair.write_bytes(key.read_bytes() + certificate.read_bytes())
    with Registry(certificate=pair) as registry:
        registry.put(REPOSITORY, IMAGE, "1.0")
        registry.blobs[str(LAYER.digest)] = BLOB
        yield registry


@pytest.fixture
def client(registry: Registry) -> Iterator[RegistryClient]:
    client = RegistryClient(registry.host, retry=TWICE)
    yield client
    client.close()


def sending(start: bytes, piece: bytes, *, every_s: float, end: bytes = b"") -> Fault:
    """Send *start*, then *piece* again and again until the client hangs up, or for twenty seconds; then *end*."""

    def answer(handler: Handler) -> bool:
        until_s = time.monotonic() + 20
        with contextlib.suppress(OSError):
            handler.wfile.write(start)
            while time.monotonic() < until_s:
                handler.wfile.write(piece)
                time.sleep(every_s)
            handler.wfile.write(end)
        handler.close_connection = True
        return True

    return answer


def chunked(content: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: {OCI_MANIFEST}\r\n\r\n".encode()
    return head + b"%x\r\n%s\r\n" % (len(content), content)


SLOW_HEADS = {
    "100 Continue": sending(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every_s=0.05),
    "103 Early Hints": sending(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", every_s=0.05),
    "a byte of the status": sending(b"", b"H", every_s=0.05),
    "a byte of a header": sending(b"HTTP/1.1 200 OK\r\nX: ", b"x", every_s=0.05),
    "header after header": sending(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n", every_s=0.01),
}


@over_both
@pytest.mark.parametrize("head", SLOW_HEADS)
def test_a_head_that_trickles_ends_in_time(registry: Registry, client: RegistryClient, head: str) -> None:
    client.manifest(REPOSITORY, "1.0")
    registry.fault("manifests", SLOW_HEADS[head], every_time=True)
    started_s = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        client.manifest(REPOSITORY, "1.0")
    assert time.monotonic() - started_s < SOON_S
    if head in ("100 Continue", "a byte of a header"):
        assert "the head of its answer did not end within 0.4 s (HEAD_TIMEOUT_S)" in str(caught.value)


def test_a_head_that_stops_in_the_middle_is_waited_for_no_longer(registry: Registry, client: RegistryClient) -> None:
    client.manifest(REPOSITORY, "1.0")
    over = threading.Event()

    def stop(handler: Handler) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        over.wait(timeout=20)
        return True

    registry.fault("manifests", stop, every_time=True)
    started_s = time.monotonic()
    with pytest.raises(RegistryUnavailable, match="HEAD_TIMEOUT_S"):
        client.manifest(REPOSITORY, "1.0")
    over.set()
    assert time.monotonic() - started_s < SOON_S


def test_a_flood_of_informational_answers_is_cut_off(
    registry: Registry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEAD_TIMEOUT_S", 60.0)
    registry.fault("manifests", sending(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 400, every_s=0), every_time=True)
    started_s = time.monotonic()
    with pytest.raises(RegistryUnavailable, match=r"more than 1048576 bytes \(MAX_FRAMING_BYTES\)"):
        client.manifest(REPOSITORY, "1.0")
    assert time.monotonic() - started_s < SOON_S


def test_the_front_door_may_not_trickle_either(registry: Registry, client: RegistryClient) -> None:
    registry.fault("/v2/", SLOW_HEADS["100 Continue"], every_time=True)
    started_s = time.monotonic()
    with pytest.raises(RegistryUnavailable, match="HEAD_TIMEOUT_S"):
        client.manifest(REPOSITORY, "1.0")
    assert time.monotonic() - started_s < SOON_S


def test_an_answer_may_begin_late_and_take_its_time(
    registry: Registry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEAD_TIMEOUT_S", 5.0)

    def answer(handler: Handler) -> bool:
        time.sleep(0.8)  # longer than a stall: the registry fetches from elsewhere first
        for part in (b"HTTP/1.1 100 Continue\r\n\r\nHTT", b"P/1.1 200 OK\r\nContent-Le", b"ngth: 10\r\n\r\n" + BLOB):
            handler.wfile.write(part)
            time.sleep(0.1)
        return True

    registry.fault("blobs", answer)
    assert b"".join(client.blob(REPOSITORY, LAYER)) == BLOB


def test_silence_is_bounded(registry: Registry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READ_TIMEOUT_S", 0.3)
    registry.fault("manifests", lambda _: threading.Event().wait(timeout=5) or True, every_time=True)
    started_s = time.monotonic()
    with pytest.raises(RegistryUnavailable, match="no answer in time"):
        client.manifest(REPOSITORY, "1.0")
    assert time.monotonic() - started_s < 4


@pytest.mark.parametrize("every_s", [0.05, 0.0])
@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (chunked(IMAGE.manifest) + b"0\r\n", b"X: x\r\n"),
        (chunked(IMAGE.manifest[:-1]), b"1;" + b"x" * 4000 + b"\r\n \r\n"),
        (chunked(IMAGE.manifest[:-1]) + b"1;", b"x"),
    ],
    ids=["trailers", "chunk extensions", "one chunk extension"],
)
def test_framing_without_content_ends_in_time(
    registry: Registry, client: RegistryClient, start: bytes, piece: bytes, every_s: float
) -> None:
    registry.fault("manifests", sending(start, piece * (1 if every_s else 1000), every_s=every_s), every_time=True)
    started_s = time.monotonic()
    with pytest.raises(RegistryError, match=r"stalled|MAX_FRAMING_BYTES|the connection ended early|expected at most"):
        client.manifest(REPOSITORY, "1.0")
    assert time.monotonic() - started_s < SOON_S


def test_trailers_without_end_do_not_spoil_a_layer_that_is_complete(registry: Registry, client: RegistryClient) -> None:
    registry.fault("blobs", sending(chunked(BLOB) + b"0\r\n", b"X: x\r\n", every_s=0.05))
    started_s = time.monotonic()
    assert b"".join(client.blob(REPOSITORY, LAYER)) == BLOB
    assert time.monotonic() - started_s < SOON_S
    assert len(registry.asked("blobs")) == 1


def test_trailers_are_allowed(registry: Registry, client: RegistryClient) -> None:
    def answer(handler: Handler) -> bool:
        handler.wfile.write(chunked(IMAGE.manifest) + b"0\r\nX-Checksum: 1\r\n\r\n")
        return True

    registry.fault("manifests", answer)
    assert client.manifest(REPOSITORY, "1.0").raw == IMAGE.manifest
    assert client.manifest(REPOSITORY, "1.0").raw == IMAGE.manifest  # on the same connection


@over_both
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_drips_is_a_stall_whatever_came_before(
    registry: Registry, client: RegistryClient, is_chunked: bool
) -> None:
    content = bytes(4 << 20)
    layer = Descriptor(OCI_LAYER, Digest.of(content), len(content))
    good = content[: 2 << 20]
    fault = (
        sending(chunked(good), b"1\r\n\0\r\n", every_s=0.02)
        if is_chunked
        else sending(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), good), b"\0", every_s=0.02)
    )
    registry.ranges = False
    registry.fault("blobs", fault, every_time=True)
    started_s = time.monotonic()
    with pytest.raises(RegistryUnavailable, match=r"stalled: \d+ bytes in"):
        list(client.blob(REPOSITORY, layer))
    assert time.monotonic() - started_s < 2 * SOON_S


def test_a_slow_link_is_no_stall(registry: Registry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STALL_WINDOW_S", 1.0)
    content = bytes(40 * limits.STALL_BYTES)

    def answer(handler: Handler) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
        for start in range(0, len(content), limits.STALL_BYTES):
            handler.wfile.write(content[start : start + limits.STALL_BYTES])
            time.sleep(0.05)
        return True

    registry.fault("blobs", answer)
    layer = Descriptor(OCI_LAYER, Digest.of(content), len(content))
    assert b"".join(client.blob(REPOSITORY, layer)) == content
    assert len(registry.asked("blobs")) == 1


def test_a_proxy_may_not_trickle(client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECT_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n")
                    for _ in range(400):
                        connection.sendall(b"X: x\r\n")
                        time.sleep(0.05)

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        other = RegistryClient("registry.test", retry=TWICE)
        started_s = time.monotonic()
        with pytest.raises(RegistryError):
            other.manifest(REPOSITORY, "1.0")
        assert time.monotonic() - started_s < SOON_S
        other.close()


@needs("openssl")
@pytest.mark.parametrize("receive", ["recv", "recv_into", "read"])
def test_whatever_reads_from_tls_is_bounded(tmp_path: Path, receive: str) -> None:
    """TLS within the TLS of a proxy uses another way to receive than HTTP does."""
    key, certificate = self_signed(tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.sslsocket_class = LimitedTlsSocket
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with contextlib.suppress(OSError), served.wrap_socket(theirs, server_side=True) as server:
            for _ in range(400):
                server.sendall(b"x")
                time.sleep(0.02)

    threading.Thread(target=serve, daemon=True).start()
    with context.wrap_socket(ours) as client:
        assert isinstance(client, LimitedTlsSocket)
        read = functools.partial(getattr(client, receive), bytearray(10) if receive == "recv_into" else 10)
        client.read_limit = ReadLimit(5.0, 5.0, 3)
        assert [read() for _ in range(3)]
        with pytest.raises(MessageTooLong):
            read()
        client.read_limit = ReadLimit(5.0, 0.2, 1000)
        started_s = time.monotonic()
        with pytest.raises(Trickle):
            list(iter(read, None))
        assert time.monotonic() - started_s < SOON_S


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("/v2/", SLOW_HEADS["100 Continue"]),
        ("manifests", SLOW_HEADS["a byte of a header"]),
        ("manifests", sending(chunked(IMAGE.manifest) + b"0\r\n", b"X: x\r\n", every_s=0.05)),
        ("blobs", SLOW_HEADS["100 Continue"]),
        ("blobs", sending(chunked(b"s") + b"0\r\n", b"X: x\r\n", every_s=0.05)),
    ],
    ids=["front door", "header", "trailers", "head of a blob", "trailers of a blob"],
)
def test_an_interrupt_ends_a_pull_wherever_it_waits(tmp_path: Path, where: str, fault: Fault) -> None:
    begun = threading.Event()

    def answer(handler: Handler) -> bool:
        begun.set()
        return fault(handler)

    with Registry() as registry:
        registry.put(REPOSITORY, IMAGE, "1")
        registry.fault(where, answer, every_time=True)
        command = [sys.executable, "-m", "imagefs", "--store", str(tmp_path / "store"), "pull"]
        with subprocess.Popen(
            [*command, "--platform", "linux/amd64", f"{registry.host}/{REPOSITORY}:1"],
            env={**os.environ, "HOME": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        ) as process:
            try:
                assert begun.wait(timeout=30)
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
                started_s = time.monotonic()
                _, err = process.communicate(timeout=15)
            finally:
                process.kill()
    assert time.monotonic() - started_s < SOON_S
    assert process.returncode == EXIT_INTERRUPTED, err
    assert "interrupted" in err
