"""Credentials open the registry they are for, and reach nobody else."""

import base64
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.errors import DigestMismatch, RegistryError, RegistryUnavailable, Unauthorized
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.registry.client import RegistryClient
from imagefs.registry.retry import RetryPolicy
from imagefs.registry.secrets import Secrets
from tests.support.built_images import OCI_LAYER, image, tar
from tests.support.commands import needs
from tests.support.registry import Fault, Registry, basic, endless, error_body, redirect, status
from tests.support.token_server import self_signed

REPOSITORY = "team/app"
IMAGE = image([tar({"etc/hello": b"hello"})])
BLOB = b"some layer"
LAYER = Descriptor(OCI_LAYER, Digest.of(BLOB), len(BLOB))
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
USER, PASSWORD = "somebody", "hunter2-pw"
IDENTITY = "identity-token-secret"


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        registry.put(REPOSITORY, IMAGE, "1.0")
        registry.blobs[str(LAYER.digest)] = BLOB
        yield registry


@pytest.fixture
def other() -> Iterator[Registry]:
    """Another server: storage, token server or thief."""
    with Registry() as other:
        other.blobs[str(LAYER.digest)] = BLOB
        yield other


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Registry]:
    """A server that speaks https, with a certificate that only this machine may have."""
    key, certificate = self_signed(tmp_path / "storage")
    pair = tmp_path / "storage/pair.pem"
    pair.write_bytes(key.read_bytes() + certificate.read_bytes())
    with Registry(certificate=pair) as storage:
        storage.blobs[str(LAYER.digest)] = BLOB
        yield storage


@pytest.fixture
def client(registry: Registry, tmp_path: Path) -> Iterator[RegistryClient]:
    """A client that has a password for the registry."""
    client = client_of(registry, tmp_path, {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()})
    yield client
    client.close()


def client_of(registry: Registry, folder: Path, entry: dict[str, str] | None) -> RegistryClient:
    authfile = folder / "auth.json"
    authfile.write_text(json.dumps({"auths": {registry.host: entry} if entry else {}}))
    return RegistryClient(registry.host, authfile=authfile, retry=RetryPolicy(sleep=lambda _: None))


def read(client: RegistryClient, descriptor: Descriptor = LAYER) -> bytes:
    return b"".join(client.blob(REPOSITORY, descriptor))


# ---- Basic ----


def test_a_password_is_sent_where_basic_is_asked_for(registry: Registry, client: RegistryClient) -> None:
    registry.basic = (USER, PASSWORD)
    assert client.manifest(REPOSITORY, "1.0").raw == IMAGE.manifest
    assert read(client) == BLOB
    assert [request.authorization for request in registry.seen] == [None] + [basic(USER, PASSWORD)] * 2


def test_a_wrong_password_is_refused_once(registry: Registry, client: RegistryClient) -> None:
    registry.basic = (USER, "other")
    with pytest.raises(Unauthorized, match="pull access denied"):
        client.manifest(REPOSITORY, "1.0")
    assert len(registry.seen) == 2


def test_without_a_password_basic_cannot_be_answered(registry: Registry, tmp_path: Path) -> None:
    registry.basic = (USER, PASSWORD)
    client = client_of(registry, tmp_path, None)
    with pytest.raises(Unauthorized, match="docker login"):
        client.manifest(REPOSITORY, "1.0")
    client.close()


def test_a_password_is_not_shown_to_a_registry_that_does_not_ask(registry: Registry, client: RegistryClient) -> None:
    assert read(client) == BLOB
    assert not any(request.authorization for request in registry.seen)


# ---- Bearer ----


def test_anonymous_pulls_get_a_token_of_their_own(registry: Registry, other: Registry, tmp_path: Path) -> None:
    registry.realm = f"{other.url}/token"
    client = client_of(registry, tmp_path, None)
    other.valid_tokens = registry.valid_tokens
    assert client.manifest(REPOSITORY, "1.0").raw == IMAGE.manifest
    assert read(client) == BLOB
    (request,) = other.seen
    assert request.query == {"service": ["the service"], "scope": [f"repository:{REPOSITORY}:pull"]}
    assert request.authorization is None
    assert {entry.authorization for entry in registry.seen} == {None, "Bearer token-1-secret"}
    client.close()


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_a_password_is_exchanged_for_a_token(
    registry: Registry, other: Registry, client: RegistryClient, name: str
) -> None:
    registry.realm = f"{other.url}/token?x=1"
    other.valid_tokens = registry.valid_tokens
    other.tokens.user, other.tokens.password, other.tokens.answer_field = USER, PASSWORD, name
    assert read(client) == BLOB
    (request,) = other.seen
    assert request.authorization == basic(USER, PASSWORD)
    assert request.query["account"] == [USER]
    assert request.query["x"] == ["1"]
    assert basic(USER, PASSWORD) not in {entry.authorization for entry in registry.seen}


def test_a_wrong_password_is_said_by_the_token_server(
    registry: Registry, other: Registry, client: RegistryClient
) -> None:
    registry.realm = f"{other.url}/token"
    other.tokens.user, other.tokens.password = USER, "other"
    with pytest.raises(Unauthorized, match=f"token server {other.host} refuses .*: incorrect username or password"):
        client.manifest(REPOSITORY, "1.0")


def test_an_identity_token_is_exchanged_by_post(registry: Registry, other: Registry, tmp_path: Path) -> None:
    registry.realm = f"{other.url}/token"
    other.valid_tokens = registry.valid_tokens
    other.tokens.identity_token = IDENTITY
    client = client_of(registry, tmp_path, {"username": "<token>", "identitytoken": IDENTITY})
    assert read(client) == BLOB
    (request,) = other.seen
    assert request.method == "POST"
    assert b"grant_type=refresh_token" in request.body
    client.close()


@pytest.mark.parametrize("refused", [400, 401, 404, 405])
def test_a_token_server_without_post_is_asked_by_get(
    registry: Registry, other: Registry, tmp_path: Path, refused: int
) -> None:
    registry.realm = f"{other.url}/token"
    other.valid_tokens = registry.valid_tokens
    other.tokens.oauth_status = refused
    other.tokens.user, other.tokens.password = USER, IDENTITY
    client = client_of(registry, tmp_path, {"username": USER, "identitytoken": IDENTITY})
    assert read(client) == BLOB
    assert [request.method for request in other.seen] == ["POST", "GET"]
    client.close()


def test_a_refresh_token_is_not_posted_on_to_where_a_redirect_says(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    registry.realm = f"{registry.url}/token"
    registry.fault("/token", redirect(f"{other.url}/token"))
    client = client_of(registry, tmp_path, {"identitytoken": IDENTITY})
    with pytest.raises(RegistryError):
        read(client)
    assert not other.seen
    client.close()


def test_a_token_that_expires_on_the_way_is_renewed_once(registry: Registry, client: RegistryClient) -> None:
    registry.realm = f"{registry.url}/token"
    client.manifest(REPOSITORY, "1.0")
    registry.valid_tokens.clear()
    assert read(client) == BLOB
    assert registry.tokens.issued == 2


def test_a_token_that_is_never_good_enough_is_renewed_once_only(registry: Registry, client: RegistryClient) -> None:
    registry.realm = f"{registry.url}/token"
    registry.valid_tokens = type("Never", (set,), {"__contains__": lambda *_: False})()
    with pytest.raises(Unauthorized):
        client.manifest(REPOSITORY, "1.0")
    assert registry.tokens.issued == 2


def test_a_refusal_without_a_challenge_is_answered_by_that_of_the_front_door(
    registry: Registry, client: RegistryClient
) -> None:
    registry.realm = f"{registry.url}/token"
    client.manifest(REPOSITORY, "1.0")
    registry.valid_tokens.clear()
    registry.challenge = ""
    assert read(client) == BLOB


def test_each_repository_has_its_own_token(registry: Registry, client: RegistryClient) -> None:
    registry.put("team/two", IMAGE, "1.0")
    registry.realm = f"{registry.url}/token"
    client.manifest(REPOSITORY, "1.0")
    client.manifest("team/two", "1.0")
    scopes = [request.query["scope"] for request in registry.asked("/token")]
    assert scopes == [["repository:team/app:pull"], ["repository:team/two:pull"]]


def test_of_several_challenges_the_token_is_preferred(registry: Registry, client: RegistryClient) -> None:
    registry.realm = f"{registry.url}/token"
    registry.challenge = f'Negotiate\nBasic realm="x", Bearer realm="{registry.realm}",service="the service"'
    assert read(client) == BLOB
    assert registry.tokens.issued == 1


@pytest.mark.parametrize(
    "realm", ["file:///etc/passwd", "http://169.254.169.254/token", "https://169.254.169.254/token", "gopher://x/"]
)
def test_a_realm_that_is_no_token_server_is_not_asked(registry: Registry, client: RegistryClient, realm: str) -> None:
    registry.realm = realm
    with pytest.raises(RegistryError, match="names a token server"):
        client.manifest(REPOSITORY, "1.0")
    assert not any(request.authorization for request in registry.seen)


def test_a_token_server_may_not_send_us_to_the_metadata_service(registry: Registry, client: RegistryClient) -> None:
    registry.realm = f"{registry.url}/token"
    registry.fault("/token", redirect("http://169.254.169.254/token", 302))
    with pytest.raises(RegistryError, match="link-local"):
        client.manifest(REPOSITORY, "1.0")


def test_a_token_server_that_redirects_takes_no_password_along(
    registry: Registry, other: Registry, client: RegistryClient
) -> None:
    registry.realm = f"{registry.url}/token"
    registry.fault("/token", redirect(f"{other.url}/token", 302))
    other.valid_tokens = registry.valid_tokens
    assert read(client) == BLOB
    assert registry.asked("/token")[0].authorization == basic(USER, PASSWORD)
    assert [request.authorization for request in other.seen] == [None]


@pytest.mark.parametrize("fault", [endless(), status(200, b"<html>"), status(200, b'{"token":"a\\nb"}'), status(200)])
def test_a_token_server_that_talks_nonsense_is_an_error(
    registry: Registry, client: RegistryClient, fault: Fault
) -> None:
    registry.realm = f"{registry.url}/token"
    registry.fault("/token", fault)
    with pytest.raises(RegistryError, match="cannot use the token from"):
        client.manifest(REPOSITORY, "1.0")


def test_a_token_server_in_trouble_is_asked_again(registry: Registry, client: RegistryClient) -> None:
    registry.realm = f"{registry.url}/token"
    registry.fault("/token", status(503), status(429))
    assert read(client) == BLOB


# ---- other hosts ----


def test_a_redirect_to_another_host_takes_no_secret_along(
    registry: Registry, other: Registry, client: RegistryClient
) -> None:
    registry.realm = f"{registry.url}/token"
    cookie = "session=cookie-secret"
    registry.fault("blobs", status(307, Location=f"{other.url}/storage/{LAYER.digest.hex}?sig=1", Set_Cookie=cookie))
    assert read(client) == BLOB
    (request,) = other.seen
    assert request.query == {"sig": ["1"]}
    assert set(request.headers) == {"host", "user-agent", "accept-encoding"}


def test_an_authorization_does_not_come_back_once_the_way_left_the_registry(
    registry: Registry, other: Registry, client: RegistryClient
) -> None:
    registry.basic = (USER, PASSWORD)
    registry.fault("blobs", redirect(f"{other.url}/back"))
    other.fault("/back", redirect(f"{registry.url}/storage/{LAYER.digest.hex}"))
    assert read(client) == BLOB
    assert registry.asked("/storage/")[0].authorization is None


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_the_challenge_of_another_host_is_never_answered(
    registry: Registry, other: Registry, client: RegistryClient, scheme: str
) -> None:
    registry.realm = f"{registry.url}/token"
    registry.fault("blobs", redirect(f"{other.url}/storage/{LAYER.digest.hex}"))
    challenge = f'{scheme} realm="{registry.url}/token",service="the service"'
    other.fault("/storage/", status(401, WWW_Authenticate=challenge), every_time=True)
    with pytest.raises(RegistryError, match=f"{other.host}, where blob .* should be, refuses with HTTP 401") as caught:
        read(client)
    assert not isinstance(caught.value, Unauthorized)
    assert registry.tokens.issued == 1
    assert [request.authorization for request in other.seen] == [None]


@needs("openssl")
@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_the_host_of_a_foreign_layer_gets_no_credentials(
    registry: Registry, storage: Registry, client: RegistryClient, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry.basic = (USER, PASSWORD)
    challenge = f'{scheme} realm="{storage.url}/token"'
    storage.fault("/layer", status(401, WWW_Authenticate=challenge), every_time=True)
    foreign = Descriptor(FOREIGN, LAYER.digest, LAYER.size, urls=(f"{storage.url}/layer",))
    assert read(client, foreign) == BLOB  # from the registry, which has it after all
    assert [request.authorization for request in storage.seen] == [None]
    assert "trying elsewhere" in caplog.text


@needs("openssl")
def test_a_foreign_layer_is_fetched_where_it_is_said_to_be(
    registry: Registry, storage: Registry, client: RegistryClient
) -> None:
    del registry.blobs[str(LAYER.digest)]
    urls = (
        "https://169.254.169.254/layer",
        f"{registry.url}/storage/{LAYER.digest.hex}",
        f"{storage.url}/absent",
        f"{storage.url}/storage/{LAYER.digest.hex}",
    )
    assert read(client, Descriptor(FOREIGN, LAYER.digest, LAYER.size, urls=urls)) == BLOB
    assert not registry.asked("/storage/")  # in plain http
    storage.blobs[str(LAYER.digest)] = b"other data"
    with pytest.raises(DigestMismatch):
        read(client, Descriptor(FOREIGN, LAYER.digest, LAYER.size, urls=urls))


def test_a_layer_that_is_not_foreign_comes_from_the_registry(
    registry: Registry, other: Registry, client: RegistryClient
) -> None:
    layer = Descriptor(OCI_LAYER, LAYER.digest, LAYER.size, urls=(f"{other.url}/storage/{LAYER.digest.hex}",))
    assert read(client, layer) == BLOB
    assert not other.seen


# ---- what is told to files and people ----


def test_neither_logs_nor_errors_hold_a_secret(
    registry: Registry, other: Registry, client: RegistryClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3").setLevel(logging.DEBUG)
    signed = f"{other.url}/storage/{LAYER.digest.hex}?X-Amz-Signature=signature-secret"
    registry.realm = f"{registry.url}/token"
    registry.fault("blobs", status(307, Location=signed, Set_Cookie="a=cookie-secret"))
    assert read(client) == BLOB
    other.fault("/storage/", status(500), every_time=True)
    registry.fault("blobs", redirect(signed), every_time=True)
    with pytest.raises(RegistryUnavailable) as caught:
        read(client)
    everything = f"{caplog.text} {caught.value} {caught.value.url} {vars(caught.value)}"
    encoded = basic(USER, PASSWORD).removeprefix("Basic ")
    for secret in (PASSWORD, encoded, "token-1-secret", "signature-secret", "cookie-secret"):
        assert secret not in everything
    assert f"GET {other.url}/storage/{LAYER.digest.hex}: 200" in caplog.text


ENCODED = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
TWICE = base64.b64encode(f"Authorization: Basic {ENCODED}".encode()).decode()
ECHOES = [
    ("basic", f"Authorization: Basic {ENCODED}", ENCODED.rstrip("=")),
    ("basic", f"Authorization: Basic {ENCODED[:-6]}", ENCODED[:-6]),
    ("basic", f"https://{USER}:{PASSWORD}@registry.example/", PASSWORD),
    ("basic", f"PASSWORD={PASSWORD.upper()}", PASSWORD),
    ("basic", TWICE, TWICE[len("Authorization: Basic ") * 4 // 3 : -2]),
    (
        "basic",
        base64.urlsafe_b64encode(f"xyz{PASSWORD}xy".encode()).decode(),
        base64.b64encode(PASSWORD.encode())[:-4].decode(),
    ),
    ("bearer", "Authorization: Bearer token-1-secret", "token-1-secret"),
    ("bearer", "token-1-secr", "token-1-secr"),
]
"""What is used, what the registry repeats, and what of it is secret."""


def echoed(text: str) -> list[tuple[str, Fault]]:
    """Return where in an answer a registry may repeat what it received."""
    return [
        ("message", status(403, error_body("DENIED", text))),
        ("long message", status(403, error_body("DENIED", "x" * (495 - len(text) // 2) + text))),
        ("code", status(403, error_body(text.replace("-", "_"), "no"))),
        ("detail", status(400, json.dumps({"details": text}).encode())),
        ("warning", status(403, b"", Warning=f'299 - "{text}"')),
        ("path", redirect(f"http://127.0.0.1:1/{text.replace(' ', '%20')}")),
        ("host", redirect(f"http://{text.rpartition(' ')[2].rstrip('=')}.invalid/")),
        ("foreign scheme", redirect(f"{text}://x/")),
    ]


@pytest.mark.parametrize(("scheme", "echo", "secret"), ECHOES)
@pytest.mark.parametrize("place", range(8))
def test_what_a_registry_repeats_of_a_login_is_not_told_on(
    registry: Registry,
    client: RegistryClient,
    caplog: pytest.LogCaptureFixture,
    scheme: str,
    echo: str,
    secret: str,
    place: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    if scheme == "basic":
        registry.basic = (USER, PASSWORD)
    else:
        registry.realm = f"{registry.url}/token"
    client.manifest(REPOSITORY, "1.0")
    name, fault = echoed(echo)[place]
    registry.fault("manifests", fault, every_time=True)
    with pytest.raises(RegistryError) as caught:
        client.manifest(REPOSITORY, "1.0")
    everything = f"{caplog.text} {caught.value} {vars(caught.value)} {caught.value.args}".lower().replace("_", "-")
    for start in range(len(secret) - 7):
        assert secret[start : start + 8].lower() not in everything, name


def test_a_token_server_that_repeats_a_refresh_token_is_not_quoted(
    registry: Registry, other: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    registry.realm = f"{other.url}/token"
    other.fault("/token", status(403, json.dumps({"details": f"no such token {IDENTITY}"}).encode()))
    client = client_of(registry, tmp_path, {"username": "<token>", "identitytoken": IDENTITY})
    with pytest.raises(Unauthorized, match=r"no such token \*\*\*") as caught:
        client.manifest(REPOSITORY, "1.0")
    assert IDENTITY not in f"{caplog.text}{vars(caught.value)}"
    client.close()


def test_a_client_that_is_closed_leaves_the_log_as_it_was(registry: Registry, tmp_path: Path) -> None:
    filters = list(logging.getLogger("imagefs.registry").filters)
    client = client_of(registry, tmp_path, None)
    client.manifest(REPOSITORY, "1.0")
    assert len(logging.getLogger("imagefs.registry").filters) == len(filters) + 1
    client.close()
    assert logging.getLogger("imagefs.registry").filters == filters


@pytest.mark.parametrize(
    ("secrets", "text", "expected"),
    [
        ((), "as it was", "as it was"),
        (("abc",), "x abc ABC abcd ab", "x *** *** ***d ab"),
        (("0123456789",), "0123456 01234567 0123456789", "0123456 *** ***"),
        (("p@ss/word",), "p%40ss%2Fword", "***"),
        (("",), "nothing", "nothing"),
        (("İstanbul-secret",), "istanbul-secret", "i***"),
    ],
)
def test_secrets_and_long_parts_of_them_become_stars(secrets: tuple[str, ...], text: str, expected: str) -> None:
    known = Secrets()
    for secret in secrets:
        known.add(secret)
    assert known.scrub(text) == expected


@pytest.mark.parametrize("before", ["", "x", "xy", "xyz", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_secrets_are_found_in_base64_wherever_they_begin(before: str, encode: Callable[[bytes], bytes]) -> None:
    secret = "~~?>hunter2-pw>?~~"
    known = Secrets()
    known.add(secret)
    text = known.scrub(encode(f"{before}{secret} and more".encode()).decode())
    start, _, end = text.partition("***")
    assert len(start) <= len(before) * 4 // 3 + 2
    assert end
    assert len(end) <= len(" and more") * 4 // 3 + 4


def test_of_very_many_secrets_the_latest_are_remembered() -> None:
    known = Secrets()
    for number in range(1000):
        known.add(f"s{number:03}")
    assert known.scrub("s000 s999") == "s000 ***"


def test_a_transfer_that_breaks_does_not_chain_errors_that_hold_urls(registry: Registry) -> None:
    client = RegistryClient("127.0.0.1:1", retry=RetryPolicy(sleep=lambda _: None))
    with pytest.raises(RegistryUnavailable) as caught:
        client.manifest(REPOSITORY, "1.0")
    assert str(caught.value) == "cannot reach registry host 127.0.0.1:1: connection refused"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    client.close()


# ---- the environment ----


def test_netrc_adds_no_credentials(
    registry: Registry, other: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"default login {USER} password {PASSWORD}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    registry.fault("blobs", redirect(f"{other.url}/storage/{LAYER.digest.hex}"))
    client = client_of(registry, tmp_path, None)
    assert read(client) == BLOB
    assert not any(request.authorization for request in (*registry.seen, *other.seen))
    client.close()


def test_a_proxy_is_used_but_never_for_this_machine(
    registry: Registry, other: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"http://proxy-user:proxy-secret@{other.host}"
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    client = client_of(registry, tmp_path, None)
    assert read(client) == BLOB
    assert not other.seen
    client.close()
    other.put(REPOSITORY, IMAGE, "1.0")
    client = RegistryClient("registry.test", tls_verify=False, retry=RetryPolicy(sleep=lambda _: None))
    assert client.manifest(REPOSITORY, "1.0").raw == IMAGE.manifest
    client.close()
    assert {request.url for request in other.seen} == {
        "http://registry.test/v2/", f"http://registry.test/v2/{REPOSITORY}/manifests/1.0"}  # fmt: skip
    assert {request.headers.get("proxy-authorization") for request in other.seen} == {
        basic("proxy-user", "proxy-secret")}  # fmt: skip
    assert not any(request.authorization for request in other.seen)


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/x", "http://localhost/x", "http://169.254.169.254/x"])
def test_a_registry_elsewhere_may_not_send_us_to_this_machine(
    other: Registry, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, other.url)
    other.fault("blobs", redirect(target))
    client = RegistryClient("registry.test", tls_verify=False, retry=RetryPolicy(sleep=lambda _: None))
    with pytest.raises(RegistryError, match="refused"):
        read(client)
    client.close()


def test_a_password_is_not_sent_in_plain_http_to_a_token_server_elsewhere(
    other: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, other.url)
    other.realm = "http://auth.test/token"
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"auths": {"registry.test": {"username": USER, "password": PASSWORD}}}))
    client = RegistryClient(
        "registry.test", tls_verify=False, authfile=authfile, retry=RetryPolicy(sleep=lambda _: None)
    )
    with pytest.raises(Unauthorized, match="in plain http, which is refused"):
        client.manifest(REPOSITORY, "1.0")
    assert not any(request.authorization for request in other.seen)
    client.close()
