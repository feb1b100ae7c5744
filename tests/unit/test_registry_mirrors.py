"""A registry and its mirrors: each takes over where another fails, at once, and none is believed more than another."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imagefs.errors import DigestMismatch, RegistryError, RegistryUnavailable
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.oci.reference import Reference
from imagefs.registry import limits
from imagefs.registry.configuration import Configuration, Mirror
from imagefs.registry.configuration import Registry as Configured
from imagefs.registry.mirrors import Endpoints, open_endpoints
from imagefs.registry.retry import RetryPolicy
from tests.support.built_images import OCI_LAYER, image, tar
from tests.support.registry import Fault, Handler, Registry, cut, refuse, status

REPOSITORY = "team/app"
IMAGE = image([tar({"etc/hello": b"hello"})])
BIG = bytes(range(256)) * 16384  # 4 MiB
LAYER = Descriptor(OCI_LAYER, Digest.of(BIG), len(BIG))


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def hosts() -> Iterator[tuple[Registry, Registry, Registry]]:
    """Two mirrors and the registry, all with everything."""
    with Registry() as first, Registry() as second, Registry() as origin:
        for host in (first, second, origin):
            host.put(REPOSITORY, IMAGE, "1")
            host.blobs[str(LAYER.digest)] = BIG
        yield first, second, origin


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def client(hosts: tuple[Registry, Registry, Registry], slept: list[float]) -> Iterator[Endpoints]:
    *mirrors, origin = (host.host for host in hosts)
    configuration = Configuration(
        (Configured(origin, origin, mirrors=tuple(Mirror(mirror, False, "all") for mirror in mirrors)),)
    )
    client = open_endpoints(
        Reference.parse(f"{origin}/{REPOSITORY}:1"),
        tls_verify=None,
        authfile=None,
        retry=RetryPolicy(sleep=slept.append, jitter=lambda: 1.0),
        configuration=configuration,
    )
    assert isinstance(client, Endpoints)
    yield client
    client.close()


def read(client: Endpoints, received: bytes = b"") -> bytes:
    return b"".join(client.blob(REPOSITORY, LAYER, (received,) if received else ()))


def ranges(host: Registry) -> list[str | None]:
    return [seen.headers.get("range") for seen in host.asked("blobs")]


def test_the_next_mirror_goes_on_in_the_middle_of_a_layer(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints, slept: list[float]
) -> None:
    first, second, origin = hosts
    first.fault("blobs", cut(BIG, 1_000_000))
    second.fault("blobs", lambda handler: cut_at_range(handler, 500_000))
    assert read(client) == BIG
    assert ranges(first) == [None]
    assert ranges(second) == ["bytes=1000000-"]
    assert ranges(origin) == ["bytes=1500000-"]
    assert slept == [1, 1]


def cut_at_range(handler: Handler, count: int) -> bool:
    """Answer a request for the rest with the first *count* bytes of it, and hang up."""
    first = int(handler.headers["range"].removeprefix("bytes=").removesuffix("-"))
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {first}-{len(BIG) - 1}/{len(BIG)}")
    handler.send_header("Content-Length", str(len(BIG) - first))
    handler.end_headers()
    handler.wfile.write(BIG[first : first + count])
    handler.close_connection = True
    return True


def test_after_the_registry_the_first_mirror_has_its_turn_again(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints
) -> None:
    for host in hosts:
        host.ranges = False
    for host, after in zip(hosts, (1_000_000, 2_000_000, 3_000_000), strict=True):
        host.fault("blobs", cut(BIG, after))
    assert read(client) == BIG
    assert [len(host.asked("blobs")) for host in hosts] == [2, 1, 1]


def test_a_mirror_that_stalls_after_a_good_start_hands_over(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STALL_WINDOW_S", 0.4)
    first, second, _ = hosts
    good = BIG[:1_000_000]
    first.fault("blobs", lambda handler: drip_after(handler, good))
    started_s = time.monotonic()
    assert read(client) == BIG
    assert time.monotonic() - started_s < 10
    (again,) = ranges(second)
    assert again is not None
    assert 1_000_000 <= int(again.removeprefix("bytes=").removesuffix("-")) < 1_001_000


def drip_after(handler: Handler, good: bytes) -> bool:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BIG), good))
    for position in range(len(good), len(good) + 200):
        try:
            handler.wfile.write(BIG[position : position + 1])
        except OSError:
            break
        time.sleep(0.05)
    handler.close_connection = True
    return True


def test_all_hosts_share_the_attempts_of_a_layer(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints, slept: list[float]
) -> None:
    for host in hosts:
        host.fault("blobs", cut(BIG, 100), every_time=True)
    with pytest.raises(RegistryUnavailable, match="gave up after 5 attempts"):
        read(client)
    assert [len(host.asked("blobs")) for host in hosts] == [2, 2, 1]
    assert len(slept) == 4


@pytest.mark.parametrize(
    "fault",
    [status(503), status(404), refuse(401, "UNAUTHORIZED", "no"), status(429, Retry_After="30"), cut(b"{}", 1)],
    ids=["unavailable", "unknown", "unauthorized", "too many", "broken"],
)
def test_a_mirror_that_fails_is_asked_once_and_not_waited_for(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints, slept: list[float], fault: Fault
) -> None:
    first, second, _ = hosts
    first.fault("manifests", fault, every_time=True)
    second.fault("manifests", fault, every_time=True)
    assert client.manifest(REPOSITORY, "1").raw == IMAGE.manifest
    assert [len(host.asked("manifests")) for host in hosts] == [1, 1, 1]
    assert not slept


def test_the_registry_itself_is_waited_for(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints, slept: list[float]
) -> None:
    first, second, origin = hosts
    for mirror in (first, second):
        mirror.fault("manifests", status(503), every_time=True)
    origin.fault("manifests", *[status(503)] * 3)
    assert client.manifest(REPOSITORY, "1").raw == IMAGE.manifest
    assert slept == [1, 2, 4]


def test_a_mirror_that_is_silent_at_its_front_door_is_left(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "READ_TIMEOUT_S", 0.3)
    first, second, _ = hosts
    over = threading.Event()
    first.fault("/v2/", lambda _: over.wait(timeout=20) or True, every_time=True)
    assert client.manifest(REPOSITORY, "1").raw == IMAGE.manifest
    over.set()
    assert second.asked("manifests")


def test_a_mirror_with_another_manifest_than_that_of_the_digest_is_left(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints
) -> None:
    first, second, _ = hosts
    first.fault("manifests", status(200, IMAGE.manifest + b" "), every_time=True)
    assert client.manifest(REPOSITORY, Digest.of(IMAGE.manifest)).raw == IMAGE.manifest
    assert len(second.asked("manifests")) == 1


def test_other_bytes_from_the_next_mirror_are_noticed_where_they_meet(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints
) -> None:
    first, second, _ = hosts
    first.fault("blobs", cut(BIG, 1_000_000))
    second.ranges = False
    second.blobs[str(LAYER.digest)] = b"x" + BIG[1:]
    received: list[bytes] = []
    with pytest.raises(DigestMismatch, match="other bytes when asked again"):
        received.extend(client.blob(REPOSITORY, LAYER))
    assert b"".join(received) == BIG[:1_000_000]


def test_what_was_received_before_is_not_asked_for_and_is_verified(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints
) -> None:
    assert read(client, BIG[:1_000_000]) == BIG
    assert ranges(hosts[0]) == ["bytes=1000000-"]
    with pytest.raises(DigestMismatch):
        read(client, b"x" + BIG[1:1_000_000])


def test_tags_are_those_of_the_registry_itself(hosts: tuple[Registry, Registry, Registry], client: Endpoints) -> None:
    first, _, origin = hosts
    first.tags[REPOSITORY] = ["old"]
    origin.tags[REPOSITORY] = ["1", "new"]
    assert list(client.tags(REPOSITORY)) == ["1", "new"]
    assert not first.seen


def test_an_embedded_layer_is_not_asked_for(hosts: tuple[Registry, Registry, Registry], client: Endpoints) -> None:
    layer = replace(LAYER, data=BIG)
    assert b"".join(client.blob(REPOSITORY, layer)) == BIG
    assert not any(host.seen for host in hosts)


def test_where_all_fail_the_error_is_that_of_the_registry(
    hosts: tuple[Registry, Registry, Registry], client: Endpoints
) -> None:
    *mirrors, origin = hosts
    for mirror in mirrors:
        mirror.fault("manifests", status(500), every_time=True)
    origin.fault("manifests", refuse(404, "MANIFEST_UNKNOWN", "manifest unknown to the origin"), every_time=True)
    with pytest.raises(RegistryError, match="unknown to the origin"):
        client.manifest(REPOSITORY, "1")


def test_a_mirror_that_accepts_connections_and_says_nothing_costs_one_timeout(
    hosts: tuple[Registry, Registry, Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECT_TIMEOUT_S", 0.5)
    monkeypatch.setattr(limits, "READ_TIMEOUT_S", 0.5)
    origin = hosts[2]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror = Mirror(f"127.0.0.1:{silent.getsockname()[1]}", False, "all")
        configuration = Configuration((Configured(origin.host, origin.host, mirrors=(mirror,)),))
        client = open_endpoints(
            Reference.parse(f"{origin.host}/{REPOSITORY}:1"),
            tls_verify=None,
            authfile=None,
            configuration=configuration,
        )
        started_s = time.monotonic()
        assert client.manifest(REPOSITORY, "1").raw == IMAGE.manifest
        assert time.monotonic() - started_s < 8
        client.close()
