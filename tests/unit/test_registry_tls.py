"""Who is believed without a good certificate, and what is said when one is bad."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagefs.errors import RegistryError, RegistryUnavailable
from imagefs.registry.client import RegistryClient
from imagefs.registry.retry import RetryPolicy
from imagefs.registry.tls import CertificateFiles, TlsPolicy, certificate_files
from tests.support.built_images import image, tar
from tests.support.commands import needs
from tests.support.registry import Registry, redirect, status

REPOSITORY = "team/app"
IMAGE = image([tar({"etc/hello": b"hello"})])
QUICK = RetryPolicy(sleep=lambda _: None)

needs_openssl = needs("openssl")


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody knows, with its key in one file."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key", "-out", folder / "crt",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"],
        check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_bytes((folder / "key").read_bytes() + (folder / "crt").read_bytes())
    return both


@pytest.fixture
def secure(certificate: Path) -> Iterator[Registry]:
    with Registry(certificate=certificate) as registry:
        registry.put(REPOSITORY, IMAGE, "1.0")
        yield registry


@pytest.fixture
def plain() -> Iterator[Registry]:
    with Registry() as registry:
        registry.put(REPOSITORY, IMAGE, "1.0")
        yield registry


def pull(host: str, *, tls_verify: bool | None = None) -> bytes:
    client = RegistryClient(host, tls_verify=tls_verify, retry=QUICK)
    try:
        return client.manifest(REPOSITORY, "1.0").raw
    finally:
        client.close()


@pytest.mark.parametrize(
    ("tls_verify", "is_here", "verifies"),
    [(None, False, True), (None, True, False), (True, True, True), (False, False, False)],
)
def test_only_this_machine_is_trusted_by_default(tls_verify: bool | None, is_here: bool, verifies: bool) -> None:
    policy = TlsPolicy(tls_verify)
    assert policy.verifies(is_here=is_here) is verifies
    assert policy.allows_http(is_here=is_here) is not verifies


@pytest.mark.parametrize("tls_verify", [None, False])
def test_this_machine_may_speak_plain_http(plain: Registry, tls_verify: bool | None) -> None:
    assert pull(plain.host, tls_verify=tls_verify) == IMAGE.manifest


def test_plain_http_is_named_where_https_is_wanted(plain: Registry) -> None:
    with pytest.raises(
        RegistryError, match=r"server gave HTTP response to HTTPS client .*--tls-verify=false"
    ) as caught:
        pull(plain.host, tls_verify=True)
    assert not isinstance(caught.value, RegistryUnavailable)
    assert not plain.seen


@needs_openssl
@pytest.mark.parametrize("tls_verify", [None, False])
def test_this_machine_may_have_any_certificate(secure: Registry, tls_verify: bool | None) -> None:
    assert pull(secure.host, tls_verify=tls_verify) == IMAGE.manifest


@needs_openssl
def test_a_certificate_nobody_knows_is_not_trusted(secure: Registry) -> None:
    with pytest.raises(RegistryError) as caught:
        pull(secure.host, tls_verify=True)
    assert f"cannot trust the TLS certificate of {secure.host}: self-signed certificate" in str(caught.value)
    assert f"certs.d/{secure.host}/ca.crt" in str(caught.value)
    assert not caught.value.temporary


@needs_openssl
def test_an_authority_in_certs_d_is_trusted_for_its_host(secure: Registry, certificate: Path, tmp_path: Path) -> None:
    folder = tmp_path / "home/.config/containers/certs.d" / secure.host
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_bytes(certificate.read_bytes())
    assert pull(secure.host, tls_verify=True) == IMAGE.manifest
    with Registry(certificate=certificate) as other:
        other.put(REPOSITORY, IMAGE, "1.0")
        with pytest.raises(RegistryError, match="cannot trust"):
            pull(other.host, tls_verify=True)


@needs_openssl
def test_https_is_never_left_for_http(secure: Registry, plain: Registry) -> None:
    secure.fault("manifests", redirect(f"{plain.url}/v2/{REPOSITORY}/manifests/1.0"))
    with pytest.raises(RegistryError, match="redirects from https to http"):
        pull(secure.host)
    assert not plain.seen


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, r"answered the request for its API \(/v2/\) with HTTP 400 Bad Request"),
        (502, r"failed with HTTP 502 Bad Gateway \(gave up after 5 attempts\)"),
    ],
)
def test_a_server_in_plain_http_that_fails_is_reported_by_its_answer(plain: Registry, code: int, message: str) -> None:
    plain.fault("/v2/", status(code, b"what do you want"), every_time=True)
    with pytest.raises(RegistryError, match=message):
        pull(plain.host)


def test_a_registry_that_is_not_there_is_named_and_asked_once() -> None:
    with pytest.raises(RegistryUnavailable) as caught:
        pull("localhost:1")
    assert str(caught.value) == "cannot reach registry host localhost:1: connection refused"


@needs_openssl
def test_a_client_certificate_is_shown_to_its_registry_only(certificate: Path, tmp_path: Path) -> None:
    with (
        Registry(certificate=certificate, ask_client_certificate=True) as registry,
        Registry(certificate=certificate, ask_client_certificate=True) as storage,
    ):
        registry.fault("manifests", redirect(f"{storage.url}/v2/{REPOSITORY}/manifests/1.0"))
        storage.put(REPOSITORY, IMAGE, "1.0")
        folder = tmp_path / "home/.config/containers/certs.d" / registry.host
        folder.mkdir(parents=True)
        for name in ("me.cert", "me.key"):
            (folder / name).write_bytes(certificate.read_bytes())
        assert pull(registry.host) == IMAGE.manifest
        assert {request.client_certificate for request in registry.seen} == {True}
        assert {request.client_certificate for request in storage.seen} == {False}


# ---- certs.d ----


def test_the_first_folder_that_knows_the_host_decides(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((second / "r.example:5000", ["b.crt", "a.crt", "me.cert", "me.key", "README"]),
                          (first / "r.example", ["x.crt"])):  # fmt: skip
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    there = second / "r.example:5000"
    assert certificate_files("r.example:5000", folders=(first, second)) == CertificateFiles(
        (there / "a.crt", there / "b.crt"), ((there / "me.cert", there / "me.key"),)
    )
    assert certificate_files("other.example", folders=(first, second)) == CertificateFiles()


def test_a_client_certificate_needs_its_key(tmp_path: Path) -> None:
    (tmp_path / "r.example").mkdir()
    (tmp_path / "r.example/me.cert").touch()
    with pytest.raises(RegistryError, match=r"missing key .*me\.key"):
        certificate_files("r.example", folders=(tmp_path,))


@pytest.mark.parametrize("names", [["ca.crt"], ["me.cert", "me.key"]])
def test_files_that_are_no_certificates_are_named(plain: Registry, tmp_path: Path, names: list[str]) -> None:
    folder = tmp_path / "home/.config/containers/certs.d" / plain.host
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("not PEM")
    with pytest.raises(RegistryError, match=names[0]):
        pull(plain.host)
