"""The address that is connected to decides what a host may do, not its name; and it is the address that was judged."""

import base64
import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import RegistryError, RegistryUnavailable
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.registry import limits
from imagefs.registry.client import RegistryClient
from imagefs.registry.http import Transport
from imagefs.registry.retry import RetryPolicy
from imagefs.registry.secrets import Secrets
from imagefs.registry.tls import CertificateFiles, TlsPolicy
from tests.support.built_images import OCI_LAYER, image, tar
from tests.support.commands import needs
from tests.support.names import ELSEWHERE, ELSEWHERE_TOO, METADATA, Names, install
from tests.support.registry import Registry, redirect

REPOSITORY = "team/app"
IMAGE = image([tar({"etc/hello": b"hello"})])
BLOB = b"some layer"
LAYER = Descriptor(OCI_LAYER, Digest.of(BLOB), len(BLOB))
QUICK = RetryPolicy(sleep=lambda _: None)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Names:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return install(monkeypatch)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        registry.put(REPOSITORY, IMAGE, "1.0")
        registry.blobs[str(LAYER.digest)] = BLOB
        yield registry


@pytest.fixture
def inner() -> Iterator[Registry]:
    """A service of this machine that only processes of this machine should reach."""
    with Registry() as inner:
        inner.blobs[str(LAYER.digest)] = BLOB
        yield inner


def fetched(host: str, *, tls_verify: bool | None = None, authfile: Path | None = None) -> bytes:
    client = RegistryClient(host, tls_verify=tls_verify, authfile=authfile, retry=QUICK)
    try:
        client.manifest(REPOSITORY, "1.0")
        return b"".join(client.blob(REPOSITORY, LAYER))
    finally:
        client.close()


@pytest.mark.parametrize("name", ["registry.localhost", "localhost", "registry.test"])
def test_a_name_of_this_machine_that_resolves_elsewhere_gets_no_password_in_plain_http(
    names: Names, registry: Registry, tmp_path: Path, name: str
) -> None:
    names.add(name, (ELSEWHERE,))
    registry.basic = ("me", "secret-password")
    host = f"{name}:{registry.port}"
    authfile = tmp_path / "auth.json"
    auth = base64.b64encode(b"me:secret-password").decode()
    authfile.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    with pytest.raises(RegistryError, match="server gave HTTP response to HTTPS client"):
        fetched(host, authfile=authfile)
    assert not registry.seen
    assert set(names.connections) == {ELSEWHERE}


@pytest.mark.parametrize(
    ("headers", "form"), [({"Authorization": "Basic eDp5"}, {}), ({}, {"refresh_token": "secret-token"})]
)
def test_no_request_carries_a_login_in_plain_http_to_another_machine(
    names: Names, registry: Registry, headers: dict[str, str], form: dict[str, str]
) -> None:
    names.add("localhost", (ELSEWHERE,))
    transport = Transport("localhost", TlsPolicy(), CertificateFiles(), Secrets())
    with pytest.raises(RegistryError, match=r"must not be sent to localhost:[0-9]+ in plain http"):
        transport.request("POST", f"http://localhost:{registry.port}/token", headers=headers, form=form)
    transport.close()
    assert not names.connections


def test_one_address_elsewhere_is_enough_to_need_tls(names: Names, registry: Registry) -> None:
    names.add("registry.test", ("127.0.0.1", ELSEWHERE))
    with pytest.raises(RegistryError, match="server gave HTTP response to HTTPS client"):
        fetched(f"registry.test:{registry.port}")
    assert not registry.seen


def test_any_name_of_a_loopback_address_is_this_machine(names: Names, registry: Registry, inner: Registry) -> None:
    names.add("registry.test", ("127.0.0.1",))
    names.add("storage.test", ("127.0.0.1",))
    registry.fault("blobs", redirect(f"http://storage.test:{inner.port}/storage/{LAYER.digest.hex}"))
    assert fetched(f"registry.test:{registry.port}") == BLOB
    assert inner.seen


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", METADATA, "fe80::1", "::ffff:169.254.169.254"])
@pytest.mark.parametrize("others", [(), (ELSEWHERE_TOO,)])
def test_a_redirect_to_a_name_of_this_machine_is_refused(
    names: Names, registry: Registry, inner: Registry, address: str, others: tuple[str, ...]
) -> None:
    names.add("registry.test", (ELSEWHERE,))
    names.add("cdn.test", (*others, address))
    registry.fault("blobs", redirect(f"http://cdn.test:{inner.port}/storage/{LAYER.digest.hex}"), every_time=True)
    with pytest.raises(RegistryError, match=r"sends imagefs to cdn.test:\d+, which .*; refused"):
        fetched(f"registry.test:{registry.port}", tls_verify=False)
    assert not inner.seen
    assert set(names.connections) == {ELSEWHERE}


def test_a_detour_over_another_host_does_not_lead_back_to_this_machine(
    names: Names, registry: Registry, inner: Registry
) -> None:
    names.add("cdn.test", (ELSEWHERE,))
    registry.fault("blobs", redirect(f"http://cdn.test:{inner.port}/away"), every_time=True)
    inner.fault("/away", redirect(f"http://localhost:{registry.port}/storage/{LAYER.digest.hex}"), every_time=True)
    with pytest.raises(RegistryError, match="refused"):
        fetched(registry.host)
    assert not registry.asked("/storage/")


@pytest.mark.parametrize("address", ["127.0.0.1", METADATA])
def test_a_realm_with_a_name_of_this_machine_is_refused(
    names: Names, registry: Registry, inner: Registry, address: str
) -> None:
    names.add("registry.test", (ELSEWHERE,))
    names.add("auth.test", (address,))
    registry.realm = f"http://auth.test:{inner.port}/token"
    with pytest.raises(RegistryError, match=r"sends imagefs to auth.test"):
        fetched(f"registry.test:{registry.port}", tls_verify=False)
    assert not inner.seen


def test_a_token_server_may_not_redirect_to_a_name_of_this_machine(
    names: Names, registry: Registry, inner: Registry
) -> None:
    names.add("registry.test", (ELSEWHERE,))
    names.add("auth.test", ("127.0.0.1",))
    registry.realm = f"http://registry.test:{registry.port}/token"
    registry.fault("/token", redirect(f"http://auth.test:{inner.port}/token"), every_time=True)
    with pytest.raises(RegistryError, match=r"sends imagefs to auth.test"):
        fetched(f"registry.test:{registry.port}", tls_verify=False)
    assert not inner.seen


@pytest.mark.parametrize("realm", ["http://auth.localhost", "http://auth.test"])
def test_a_password_stays_from_a_realm_elsewhere_whatever_its_name(
    names: Names, registry: Registry, inner: Registry, tmp_path: Path, realm: str
) -> None:
    names.add(realm.removeprefix("http://"), (ELSEWHERE,))
    registry.realm = f"{realm}:{inner.port}/token"
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"auths": {registry.host: {"username": "me", "password": "secret-password"}}}))
    with pytest.raises(RegistryError, match="refused"):
        fetched(registry.host, authfile=authfile)
    assert not inner.seen


def test_a_foreign_layer_is_not_fetched_from_a_name_of_this_machine(names: Names, registry: Registry) -> None:
    names.add("registry.test", (ELSEWHERE,))
    names.add("layers.test", ("127.0.0.1",))
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    layer = Descriptor(foreign, LAYER.digest, LAYER.size, urls=(f"https://layers.test:{registry.port}/x",))
    client = RegistryClient(f"registry.test:{registry.port}", tls_verify=False, retry=QUICK)
    assert b"".join(client.blob(REPOSITORY, layer)) == BLOB  # from the registry instead
    client.close()
    assert set(names.connections) == {ELSEWHERE}


def test_a_name_is_resolved_once_so_that_it_cannot_move_after_it_was_judged(
    names: Names, registry: Registry, inner: Registry
) -> None:
    names.add("registry.test", (ELSEWHERE,), ("127.0.0.1",))
    names.add("cdn.test", (ELSEWHERE_TOO,), ("127.0.0.1",))
    registry.extra_headers = {"Connection": "close"}  # each request connects anew
    inner.extra_headers = {"Connection": "close"}
    target = f"http://cdn.test:{inner.port}/storage/{LAYER.digest.hex}"
    registry.fault("blobs", redirect(target), every_time=True)
    client = RegistryClient(f"registry.test:{registry.port}", tls_verify=False, retry=QUICK)
    for _ in range(3):
        assert b"".join(client.blob(REPOSITORY, LAYER)) == BLOB
    client.close()
    assert sorted(names.lookups) == ["cdn.test", "registry.test"]
    assert set(names.connections) == {ELSEWHERE, ELSEWHERE_TOO}


def test_the_next_address_is_tried_where_one_refuses(names: Names, registry: Registry) -> None:
    names.add("registry.test", (ELSEWHERE, ELSEWHERE_TOO))
    names.refusing.add(ELSEWHERE)
    assert fetched(f"registry.test:{registry.port}", tls_verify=False) == BLOB
    assert names.connections[:2] == [ELSEWHERE, ELSEWHERE_TOO]


def test_an_address_that_is_silent_leaves_time_for_the_next(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECT_TIMEOUT_S", 2.0)
    names.add("registry.test", (ELSEWHERE, ELSEWHERE_TOO))
    names.silent.add(ELSEWHERE)
    started_s = time.monotonic()
    with Registry() as registry, contextlib.closing(RegistryClient(f"registry.test:{registry.port}")) as client:
        with pytest.raises(RegistryError, match="server gave HTTP response"):
            client.manifest(REPOSITORY, "1.0")
        assert 0.9 < time.monotonic() - started_s < 1.9
    assert names.connections == [ELSEWHERE, ELSEWHERE_TOO]


def test_of_many_addresses_a_few_are_tried(names: Names, registry: Registry) -> None:
    addresses = tuple(f"192.0.2.{number}" for number in range(1, 200))
    names.add("registry.test", addresses)
    names.refusing.update(addresses)
    with pytest.raises(RegistryUnavailable, match="connection refused"):
        fetched(f"registry.test:{registry.port}")
    assert names.connections == list(addresses[:8])


def test_a_name_server_that_is_silent_is_not_waited_for(
    names: Names, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    resolve = socket.getaddrinfo

    def silent(host: str, *arguments: object, **options: object) -> object:
        if host == "registry.test" and not options.get("flags"):
            assert threading.current_thread() is not threading.main_thread()  # which could not be interrupted
            over.wait(timeout=60)
        return resolve(host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr(limits, "CONNECT_TIMEOUT_S", 0.2)
    with pytest.raises(RegistryUnavailable, match=r"cannot reach registry host registry.test: no answer in time"):
        fetched("registry.test")
    over.set()


@needs("openssl")
def test_certificates_are_checked_for_the_name_and_not_for_the_address(names: Names, tmp_path: Path) -> None:
    names.add("registry.test", (ELSEWHERE,))
    names.add("other.test", (ELSEWHERE,))
    pair = tmp_path / "pair.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", pair, "-out", tmp_path / "ca.crt",
         "-subj", "/CN=registry.test", "-addext", "subjectAltName=DNS:registry.test", "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    certificate = (tmp_path / "ca.crt").read_bytes()
    pair.write_bytes(pair.read_bytes() + certificate)
    with Registry(certificate=pair) as registry:
        registry.put(REPOSITORY, IMAGE, "1.0")
        registry.blobs[str(LAYER.digest)] = BLOB
        for name in ("registry.test", "other.test"):
            folder = tmp_path / ".config/containers/certs.d" / f"{name}:{registry.port}"
            folder.mkdir(parents=True)
            (folder / "ca.crt").write_bytes(certificate)
        assert fetched(f"registry.test:{registry.port}") == BLOB
        assert {seen.headers["host"] for seen in registry.seen} == {f"registry.test:{registry.port}"}
        with pytest.raises(RegistryError, match=r"cannot trust the TLS certificate of other.test"):
            fetched(f"other.test:{registry.port}")
