"""The registry client against a registry that works, fails and lies."""

import dataclasses
import gzip
import itertools
import json
import logging
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from imagefs.errors import (
    DigestMismatch,
    InvalidManifest,
    ManifestUnknown,
    RegistryError,
    RegistryUnavailable,
    SizeMismatch,
    Unauthorized,
)
from imagefs.oci import media_type
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.registry import client as registry_client
from imagefs.registry import http as registry_http
from imagefs.registry.client import RegistryClient
from imagefs.registry.http import Transport
from imagefs.registry.retry import RetryPolicy
from imagefs.registry.secrets import Secrets
from imagefs.registry.tls import CertificateFiles, TlsPolicy
from tests.support.built_images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, image, sha256, tar
from tests.support.registry import Fault, Handler, Registry, chunked, cut, endless, redirect, refuse, status

REPOSITORY = "team/app"
IMAGE = image([tar({"etc/hello": b"hello"})])
BIG = bytes(range(256)) * 16384  # 4 MiB
BIG_BLOB = Descriptor(OCI_LAYER, Digest.of(BIG), len(BIG))
BLOBS = f"/v2/{REPOSITORY}/blobs/"
MANIFESTS = f"/v2/{REPOSITORY}/manifests/"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry with one image and one large blob, in an environment without proxies and credentials."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    with Registry() as registry:
        registry.put(REPOSITORY, IMAGE, "1.0")
        registry.blobs[str(BIG_BLOB.digest)] = BIG
        yield registry


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def client(registry: Registry, slept: list[float]) -> Iterator[RegistryClient]:
    client = RegistryClient(registry.host, retry=RetryPolicy(sleep=slept.append, jitter=lambda: 1.0))
    yield client
    client.close()


def layer_of(blob: bytes) -> Descriptor:
    return Descriptor(OCI_LAYER, Digest.of(blob), len(blob))


def read(client: RegistryClient, descriptor: Descriptor) -> bytes:
    return b"".join(client.blob(REPOSITORY, descriptor))


# ---- manifests ----


def test_a_manifest_comes_with_its_type_and_digest(registry: Registry, client: RegistryClient) -> None:
    by_tag = client.manifest(REPOSITORY, "1.0")
    assert by_tag.raw == IMAGE.manifest
    assert by_tag.media_type == OCI_MANIFEST
    assert str(by_tag.digest) == sha256(IMAGE.manifest)
    assert client.manifest(REPOSITORY, by_tag.digest) == by_tag
    headers = registry.asked(MANIFESTS)[0].headers
    assert headers["accept"].split(", ") == list(media_type.ACCEPT)
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in headers


def test_parameters_of_the_content_type_are_left_out(registry: Registry, client: RegistryClient) -> None:
    registry.fault("manifests", status(200, IMAGE.manifest, Content_Type=f"{OCI_MANIFEST}; charset=utf-8"))
    assert client.manifest(REPOSITORY, "1.0").media_type == OCI_MANIFEST


def test_other_bytes_than_asked_for_by_digest_are_refused(registry: Registry, client: RegistryClient) -> None:
    registry.fault("manifests", status(200, IMAGE.manifest + b" ", Content_Type=OCI_MANIFEST))
    with pytest.raises(DigestMismatch, match="manifest verification failed"):
        client.manifest(REPOSITORY, Digest.of(IMAGE.manifest))
    assert len(registry.asked(MANIFESTS)) == 1


def test_other_bytes_than_announced_for_a_tag_are_refused(registry: Registry, client: RegistryClient) -> None:
    registry.fault("manifests", status(200, IMAGE.manifest + b" ", Docker_Content_Digest=sha256(IMAGE.manifest)))
    with pytest.raises(DigestMismatch, match="manifest verification failed"):
        client.manifest(REPOSITORY, "1.0")


@pytest.mark.parametrize("announced", ["", "md5:abc", "sha256:short", "blake3:" + "0" * 64, "garbage"])
def test_an_announced_digest_not_understood_is_no_digest(
    registry: Registry, client: RegistryClient, announced: str
) -> None:
    registry.fault("manifests", status(200, IMAGE.manifest, Docker_Content_Digest=announced))
    assert str(client.manifest(REPOSITORY, "1.0").digest) == sha256(IMAGE.manifest)


def test_a_manifest_is_named_in_the_algorithm_the_registry_uses(registry: Registry, client: RegistryClient) -> None:
    digest = Digest.of(IMAGE.manifest, "sha512")
    registry.fault("manifests", status(200, IMAGE.manifest, Docker_Content_Digest=str(digest)))
    assert client.manifest(REPOSITORY, "1.0").digest == digest


@pytest.mark.parametrize(
    ("repository", "reference", "message"),
    [
        (REPOSITORY, "9", "manifest for {host}/team/app:9 not found: manifest unknown: manifest unknown"),
        ("no/such", "1", "repository {host}/no/such not found: name unknown: repository name not known to registry"),
    ],
)
def test_what_is_not_there_is_said_in_dockers_words(
    registry: Registry, client: RegistryClient, repository: str, reference: str, message: str
) -> None:
    with pytest.raises(ManifestUnknown) as caught:
        client.manifest(repository, reference)
    assert str(caught.value) == message.format(host=registry.host)
    assert caught.value.status == 404


@pytest.mark.parametrize("code", [401, 403])
def test_a_refusal_is_said_in_dockers_words(registry: Registry, client: RegistryClient, code: int) -> None:
    message = "requested access to the resource is denied"
    registry.fault("manifests", refuse(code, "DENIED", message), every_time=True)
    with pytest.raises(Unauthorized) as caught:
        client.manifest(REPOSITORY, "1.0")
    assert str(caught.value) == (
        f"pull access denied for {registry.host}/team/app, repository does not exist or may require 'docker login': "
        f"denied: {message}"
    )
    assert caught.value.codes == ("DENIED",)
    assert len(registry.asked(MANIFESTS)) == 1


def test_a_manifest_too_large_is_refused_without_reading_it_all(registry: Registry, client: RegistryClient) -> None:
    registry.fault("manifests", endless())
    with pytest.raises(InvalidManifest, match="at most 4194304 bytes"):
        client.manifest(REPOSITORY, "1.0")


def test_an_endless_error_body_is_not_read_to_its_end(registry: Registry, client: RegistryClient) -> None:
    registry.fault("manifests", endless(code=404))
    with pytest.raises(ManifestUnknown, match="no more than HTTP 404"):
        client.manifest(REPOSITORY, "1.0")


def test_control_characters_of_an_error_never_reach_the_terminal(registry: Registry, client: RegistryClient) -> None:
    registry.fault("manifests", refuse(404, "MANIFEST_UNKNOWN", "\x1b[2Jgone"))
    with pytest.raises(ManifestUnknown, match=r"\\x1b\[2Jgone"):
        client.manifest(REPOSITORY, "1.0")


# ---- trying again ----


def test_a_failing_registry_is_tried_again(registry: Registry, client: RegistryClient, slept: list[float]) -> None:
    registry.fault("manifests", status(500), status(503), status(502), cut(IMAGE.manifest, 5))
    assert client.manifest(REPOSITORY, "1.0").raw == IMAGE.manifest
    assert slept == [1, 2, 4, 8]


def test_a_registry_that_keeps_failing_is_given_up(
    registry: Registry, client: RegistryClient, slept: list[float]
) -> None:
    registry.fault("manifests", refuse(503, "UNAVAILABLE", "come back later"), every_time=True)
    with pytest.raises(RegistryUnavailable) as caught:
        client.manifest(REPOSITORY, "1.0")
    assert str(caught.value) == (
        f"{registry.host} failed with HTTP 503 Service Unavailable: unavailable: come back later "
        "(gave up after 5 attempts)"
    )
    assert len(slept) == 4


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [("7", 7), ("0", 0), ("985.86µs", 1), ("never", 1), ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("60", 60)],
)
def test_the_wait_a_registry_asks_for_is_kept(
    registry: Registry, client: RegistryClient, slept: list[float], retry_after: str, expected: float
) -> None:
    registry.fault("manifests", status(429, Retry_After=retry_after.encode().decode("latin-1")))
    client.manifest(REPOSITORY, "1.0")
    assert slept == [expected]


def test_a_wait_longer_than_a_minute_is_not_waited_for(
    registry: Registry, client: RegistryClient, slept: list[float]
) -> None:
    registry.fault("manifests", status(429, Retry_After="3600"))
    with pytest.raises(RegistryUnavailable) as caught:
        client.manifest(REPOSITORY, "1.0")
    assert caught.value.retry_after_s == 3600
    assert not slept


def test_a_spent_pull_limit_is_said_and_not_waited_for(
    registry: Registry, client: RegistryClient, slept: list[float]
) -> None:
    limits = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "0;w=21600"}
    message = "You have reached your pull rate limit."
    registry.fault("manifests", refuse(429, "TOOMANYREQUESTS", message, **limits))
    with pytest.raises(RegistryError) as caught:
        client.manifest(REPOSITORY, "1.0")
    assert str(caught.value) == f"toomanyrequests: {message} (limit 100 per 6 h, 0 left)"
    assert not slept


# ---- blobs ----


def test_a_blob_comes_in_bounded_pieces(client: RegistryClient) -> None:
    pieces = list(client.blob(REPOSITORY, BIG_BLOB))
    assert b"".join(pieces) == BIG
    assert max(map(len, pieces)) <= 1024 * 1024


def test_a_config_is_read_whole(client: RegistryClient) -> None:
    config = Descriptor(OCI_CONFIG, Digest.of(IMAGE.config), len(IMAGE.config))
    assert client.document(REPOSITORY, config, limit_bytes=4096) == IMAGE.config
    with pytest.raises(InvalidManifest, match="at most 10 bytes"):
        client.document(REPOSITORY, config, limit_bytes=10)


def test_an_empty_blob_is_a_blob(registry: Registry, client: RegistryClient) -> None:
    registry.blobs[sha256(b"")] = b""
    assert read(client, layer_of(b"")) == b""


def test_an_empty_blob_that_is_not_there_is_missed(client: RegistryClient) -> None:
    with pytest.raises(ManifestUnknown):
        read(client, layer_of(b""))


def test_an_embedded_blob_is_not_fetched(registry: Registry, client: RegistryClient) -> None:
    assert read(client, dataclasses.replace(layer_of(b"abc"), data=b"abc")) == b"abc"
    assert not registry.seen


def test_a_sha512_blob_is_verified_with_sha512(registry: Registry, client: RegistryClient) -> None:
    digest = Digest.of(b"abc", "sha512")
    registry.blobs[str(digest)] = b"abc"
    assert read(client, Descriptor(OCI_LAYER, digest, 3)) == b"abc"


def test_a_body_is_taken_as_it_came_whatever_encoding_is_claimed(registry: Registry, client: RegistryClient) -> None:
    blob = gzip.compress(b"abc", mtime=0)
    registry.fault("blobs", status(200, blob, Content_Encoding="gzip"))
    assert read(client, layer_of(blob)) == blob


def test_an_absent_blob_is_named(registry: Registry, client: RegistryClient) -> None:
    absent = layer_of(b"absent")
    with pytest.raises(
        ManifestUnknown, match=f"blob {absent.digest} of {registry.host}/team/app not found: blob unknown"
    ):
        read(client, absent)
    assert len(registry.asked(BLOBS)) == 1


def test_a_broken_transfer_goes_on_where_it_broke(
    registry: Registry, client: RegistryClient, slept: list[float]
) -> None:
    registry.fault("blobs", cut(BIG, 1_500_000))
    assert read(client, BIG_BLOB) == BIG
    first, second = registry.asked(BLOBS)
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=1500000-"
    assert slept == [1]


def test_a_server_without_ranges_is_read_again_from_the_start(registry: Registry, client: RegistryClient) -> None:
    registry.ranges = False
    registry.fault("blobs", cut(BIG, 1_500_000), cut(BIG, 1_000_000), cut(BIG, 3_000_000))
    assert read(client, BIG_BLOB) == BIG


@pytest.mark.parametrize(
    "fault",
    [
        status(416),
        status(206, BIG[5:], Content_Range=f"bytes 5-{len(BIG) - 1}/{len(BIG)}"),
        status(206, BIG[100:], Content_Range="nonsense"),
        status(206, BIG[100:]),
    ],
)
def test_a_range_not_asked_for_is_not_used(registry: Registry, client: RegistryClient, fault: Fault) -> None:
    registry.fault("blobs", cut(BIG, 100), fault)
    assert read(client, BIG_BLOB) == BIG
    assert "range" not in registry.asked(BLOBS)[2].headers


def test_other_bytes_when_resuming_are_noticed_where_they_meet(registry: Registry, client: RegistryClient) -> None:
    registry.ranges = False
    registry.blobs[str(BIG_BLOB.digest)] = b"\1" + BIG[1:]
    registry.fault("blobs", cut(BIG, 1000))
    pieces = client.blob(REPOSITORY, BIG_BLOB)
    assert next(pieces) == BIG[:1000]
    with pytest.raises(DigestMismatch, match="other bytes when asked again"):
        next(pieces)


def test_progress_gives_the_attempts_back(registry: Registry, client: RegistryClient, slept: list[float]) -> None:
    content = BIG * 3
    descriptor = layer_of(content)
    registry.ranges = False
    registry.blobs[str(descriptor.digest)] = content
    registry.fault("blobs", *(cut(content, step * 1_200_000) for step in range(1, 11)))
    assert read(client, descriptor) == content
    assert slept == [1] * 10


def test_a_link_that_breaks_every_300_kilobytes_brings_all_of_a_blob(
    registry: Registry, client: RegistryClient, slept: list[float]
) -> None:
    content = bytes(range(256)) * 40_000  # ten megabytes
    descriptor = layer_of(content)
    registry.blobs[str(descriptor.digest)] = content

    def broken(handler: Handler) -> bool:
        first = int(handler.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        handler.send_response(206 if first else 200)
        handler.send_header("Content-Length", str(len(content) - first))
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        handler.wfile.write(content[first : first + 300_000])
        handler.close_connection = True
        return True

    registry.fault("blobs", broken, every_time=True)
    assert read(client, descriptor) == content
    assert slept == [1] * (len(content) // 300_000)


def test_progress_of_a_few_bytes_is_none(registry: Registry, client: RegistryClient) -> None:
    registry.ranges = False
    registry.fault("blobs", *(cut(BIG, step * 60_000) for step in range(1, 9)))
    with pytest.raises(RegistryUnavailable, match="gave up after 5 attempts"):
        read(client, BIG_BLOB)


def test_without_progress_attempts_are_spent(registry: Registry, client: RegistryClient, slept: list[float]) -> None:
    registry.fault("blobs", *(cut(BIG, 100) for _ in range(9)))
    with pytest.raises(RegistryUnavailable, match="gave up after 5 attempts"):
        read(client, BIG_BLOB)
    assert len(slept) == 4


def test_attempts_are_bounded_whatever_the_progress(registry: Registry, slept: list[float]) -> None:
    policy = RetryPolicy(total_attempts=3, progress_bytes=1, sleep=slept.append)
    client = RegistryClient(registry.host, retry=policy)
    registry.ranges = False
    registry.fault("blobs", *(cut(BIG, step * 1000) for step in range(1, 9)))
    with pytest.raises(RegistryUnavailable, match="gave up after 3 attempts"):
        read(client, BIG_BLOB)
    client.close()


@pytest.mark.parametrize("content", [b"abcd", b"ab", b"xyz", b""])
def test_a_blob_that_is_not_what_it_should_be_is_refused_at_once(
    registry: Registry, client: RegistryClient, slept: list[float], content: bytes
) -> None:
    registry.blobs[sha256(b"abc")] = content
    with pytest.raises(DigestMismatch if len(content) == 3 else SizeMismatch, match="layer"):
        read(client, layer_of(b"abc"))
    assert not slept


def test_a_blob_of_unannounced_size_is_cut_off_at_the_first_byte_too_many(
    registry: Registry, client: RegistryClient
) -> None:
    registry.fault("blobs", endless(b"\0" * 65536))
    with pytest.raises(SizeMismatch):
        read(client, layer_of(b"\0" * 100))


def test_one_byte_too_many_is_not_passed_on(registry: Registry, client: RegistryClient) -> None:
    registry.fault("blobs", chunked(b"abcd"))
    received: list[bytes] = []
    with pytest.raises(SizeMismatch):
        received.extend(client.blob(REPOSITORY, layer_of(b"abc")))
    assert received == []


def test_a_short_blob_of_unannounced_size_is_asked_for_again(registry: Registry, client: RegistryClient) -> None:
    registry.fault("blobs", chunked(BIG[:1000]))
    assert read(client, BIG_BLOB) == BIG


def test_a_break_behind_the_last_byte_does_no_harm(registry: Registry, client: RegistryClient) -> None:
    def answer(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\nabc\r\n")
        handler.close_connection = True
        return True

    registry.fault("blobs", answer)
    assert read(client, layer_of(b"abc")) == b"abc"


def test_a_transfer_that_crawls_is_a_stall(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_http, "_READ_BYTES", 1)
    times = iter(range(0, 1_000_000, 11))  # between two looks at the clock 11 s pass
    clock = lambda: float(next(times))  # noqa: E731
    transport = Transport(registry.host, TlsPolicy(), CertificateFiles(), Secrets(), clock=clock)
    response = transport.request("GET", f"{registry.url}{BLOBS}{BIG_BLOB.digest}")
    with pytest.raises(RegistryUnavailable, match="stalled: 3 bytes in 33 s"):
        list(response.chunks())
    response.close()
    transport.close()


def test_an_abandoned_blob_lets_go_of_its_connection(client: RegistryClient) -> None:
    pieces = client.blob(REPOSITORY, BIG_BLOB)
    next(pieces)
    assert isinstance(pieces, Generator)
    pieces.close()


def test_several_threads_share_one_client_and_one_token(registry: Registry, client: RegistryClient) -> None:
    registry.realm = f"{registry.url}/token"
    wrong: list[object] = []

    def pull() -> None:
        try:
            assert read(client, BIG_BLOB) == BIG
        except BaseException as error:  # reported below
            wrong.append(error)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert registry.tokens.issued == 1
    assert len(registry.asked("/token")) == 1


# ---- tags ----


def test_tags_come_page_by_page(registry: Registry, client: RegistryClient) -> None:
    registry.tags[REPOSITORY] = ["a", "b", "c", "d", "e"]
    registry.page_size = 2
    assert list(client.tags(REPOSITORY)) == ["a", "b", "c", "d", "e"]
    assert len(registry.asked("tags")) == 3


def test_a_full_page_without_a_link_is_not_the_end(registry: Registry, client: RegistryClient) -> None:
    everything = [f"t{number:04}" for number in range(1500)]
    registry.tags[REPOSITORY] = everything
    registry.fault("tags", status(200, json.dumps({"tags": everything[:1000]}).encode()))
    assert list(client.tags(REPOSITORY)) == everything


def test_pages_that_link_in_a_circle_end(registry: Registry, client: RegistryClient) -> None:
    page = status(200, b'{"tags":["a","b"]}', Link=f'</v2/{REPOSITORY}/tags/list?last=b>; rel="next"')
    registry.fault("tags", page, every_time=True)
    assert list(client.tags(REPOSITORY)) == ["a", "b"]


def endless_tags(make: Callable[[int], list[str]]) -> Fault:
    """Answer with the tags of one page after the other, without end."""
    pages = itertools.count()

    def answer(handler: Handler) -> bool:
        number = next(pages)
        handler.answer(200, json.dumps({"tags": make(number)}).encode(), {"Link": f'<?page={number}>; rel="next"'})
        return True

    return answer


@pytest.mark.parametrize(
    ("limit", "value", "make", "message"),
    [
        ("MAX_TAGS", 10, lambda page: [f"{page}-{n}" for n in range(5)], r"more than 10 tags \(MAX_TAGS\)"),
        ("MAX_TAG_BYTES", 99, lambda page: [f"{page:020}"], r"more than 99 bytes of tags \(MAX_TAG_BYTES\)"),
        ("MAX_PAGES", 7, lambda _: ["same"], r"more than 7 pages \(MAX_PAGES\)"),
    ],
)
def test_a_tag_list_without_end_is_refused_at_a_limit(
    registry: Registry,
    client: RegistryClient,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    make: Callable[[int], list[str]],
    message: str,
) -> None:
    monkeypatch.setattr(registry_client, limit, value)
    registry.fault("tags", endless_tags(make), every_time=True)
    listed: list[str] = []
    with pytest.raises(RegistryError, match=message) as caught:
        listed.extend(client.tags(REPOSITORY))
    assert "imagefs tags --limit N" in str(caught.value)
    assert not caught.value.temporary
    whole_pages = {"MAX_TAGS": 3, "MAX_TAG_BYTES": 5, "MAX_PAGES": 1}[limit]
    assert listed == [tag for page in range(whole_pages) for tag in make(page)]


def test_a_tag_list_at_its_limit_is_read_whole(
    registry: Registry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.tags[REPOSITORY] = ["aa", "bb", "cc"]
    registry.page_size = 1
    for name, value in (("MAX_TAGS", 3), ("MAX_TAG_BYTES", 6), ("MAX_PAGES", 3)):
        monkeypatch.setattr(registry_client, name, value)
    assert list(client.tags(REPOSITORY)) == ["aa", "bb", "cc"]


def test_of_an_endless_tag_list_the_first_ones_can_be_had(registry: Registry, client: RegistryClient) -> None:
    registry.fault("tags", endless_tags(lambda page: [f"{page}-{n}" for n in range(1000)]), every_time=True)
    assert len(list(itertools.islice(client.tags(REPOSITORY), 2500))) == 2500
    assert len(registry.asked("tags")) == 3


def test_the_next_page_is_not_fetched_from_another_host(registry: Registry, client: RegistryClient) -> None:
    registry.fault("tags", status(200, b'{"tags":["a"]}', Link='<http://169.254.169.254/>; rel="next"'))
    with pytest.raises(RegistryError, match="another host"):
        list(client.tags(REPOSITORY))


def test_names_that_are_no_tags_are_skipped_with_a_warning(
    registry: Registry, client: RegistryClient, caplog: pytest.LogCaptureFixture
) -> None:
    registry.tags[REPOSITORY] = ["a", "../x", "b\n"]
    assert list(client.tags(REPOSITORY)) == ["a"]
    assert "'../x' as a tag, which is none" in caplog.text


def test_the_tags_of_an_unknown_repository_are_an_error(client: RegistryClient) -> None:
    with pytest.raises(ManifestUnknown, match=r"repository .*/no/such not found"):
        list(client.tags("no/such"))


# ---- what a registry says besides ----


def test_warnings_are_shown_once(registry: Registry, client: RegistryClient, caplog: pytest.LogCaptureFixture) -> None:
    registry.extra_headers["Warning"] = '299 - "going away \\"soon\\""\n299 - "and \t more"'
    client.manifest(REPOSITORY, "1.0")
    client.manifest(REPOSITORY, "1.0")
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [f'{registry.host} says: going away "soon"', f"{registry.host} says: and \\t more"]


def test_redirects_are_followed_up_to_ten(registry: Registry, client: RegistryClient) -> None:
    registry.fault("blobs", redirect(f"/storage/{BIG_BLOB.digest.hex}"))
    assert read(client, BIG_BLOB) == BIG
    registry.fault("blobs", redirect(f"{registry.url}{BLOBS}x"), every_time=True)
    with pytest.raises(RegistryError, match="more than 10 times"):
        read(client, BIG_BLOB)
