"""The registry client: manifests, blobs and tags of one registry.

Receives repository names, references and descriptors; hands on content that is verified, or one error that says what a
person can do about it.  It must never know what the content is for.
"""

import contextlib
import functools
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from imagefs.errors import DigestMismatch, InvalidDigest, InvalidManifest, RegistryError, printable
from imagefs.oci import media_type
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.oci.manifest import MAX_MANIFEST_BYTES
from imagefs.registry import protocol
from imagefs.registry.boundaries import origin_of
from imagefs.registry.download import Opened, download
from imagefs.registry.http import Response
from imagefs.registry.refusal import Asked
from imagefs.registry.retry import RetryPolicy, retrying
from imagefs.registry.session import RegistrySession
from imagefs.registry.tls import TlsPolicy

__all__ = ["RawManifest", "RegistryClient"]

_log = logging.getLogger("imagefs.registry")

MAX_PAGES = 10_000
"""Most pages of tags that are read, however they link to each other."""

MAX_TAGS = 200_000
"""Most tags of one repository: several times what the largest public ones have, in about 30 MB of memory."""

MAX_TAG_BYTES = 16 * 1024 * 1024
"""Most bytes in these tags: eighty for each of `MAX_TAGS`, where usual ones have ten or twenty."""

_DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class RawManifest:
    """A manifest or index as the registry sent it.

    *media_type* is its Content-Type without parameters, "" where there was none; *digest* was computed from *raw*.
    """

    media_type: str
    raw: bytes = field(repr=False)
    digest: Digest


class RegistryClient:
    """Pulls from one registry, *registry* being ``host[:port]`` or ``docker.io``.

    *tls_verify* is True to insist on https with a good certificate, False to also take a bad one or plain http, None to
    do so for this machine only.  *authfile* holds credentials instead of the places docker and podman have for them.
    Nothing is opened or read before the first request.

    Thread-safe: layers are downloaded several at a time by one client.  Close it when no thread uses it any more; an
    iterator it returned must be exhausted or closed by then.
    """

    def __init__(
        self,
        registry: str,
        *,
        tls_verify: bool | None = None,
        authfile: Path | None = None,
        retry: RetryPolicy = _DEFAULT_RETRY,
    ) -> None:
        self._retry = retry
        self._session = RegistrySession(registry, policy=TlsPolicy(tls_verify), authfile=authfile, retry=retry)

    def manifest(self, repository: str, reference: str | Digest) -> RawManifest:
        """Return the manifest or index that a tag or digest names now.

        One asked for by digest has that digest.  One asked for by tag has the digest the registry announced, if it did,
        and is named in the same algorithm.

        Raises: ManifestUnknown, Unauthorized, RegistryUnavailable, RegistryError; DigestMismatch; InvalidManifest where
        it is larger than any manifest may be.
        """
        asked = self._session.asked("manifest", repository, str(reference))
        self._session.root_url()  # not inside what is tried again: a registry that cannot be reached at all is final
        return retrying(self._retry, functools.partial(self._manifest, repository, reference, asked))

    def document(self, repository: str, descriptor: Descriptor, *, limit_bytes: int) -> bytes:
        """Return a small blob, such as an image's config, whole and verified.

        Raises: InvalidManifest where it is larger than *limit_bytes*; else as `blob` does.
        """
        what = "image config" if media_type.is_config(descriptor.media_type) else "document"
        if descriptor.size > limit_bytes:
            reason = f"expected at most {limit_bytes} bytes, its descriptor says {descriptor.size}"
            raise InvalidManifest(f"{what} {descriptor.digest}", reason)
        return b"".join(self._blob(repository, descriptor, what))

    def blob(self, repository: str, descriptor: Descriptor, received: Iterable[bytes] = ()) -> Iterator[bytes]:
        """Yield a blob in pieces of at most 1 MiB; only after the last one is it known to be what *descriptor* says.

        *received* is what an earlier attempt got of it, from its beginning, in such pieces: they come first, are
        verified with the rest, and not asked for again.  A transfer that breaks is resumed.  A foreign layer is asked
        for where its descriptor says, without credentials, and then from the registry.  Close the iterator where it is
        not read to its end.

        Raises: ManifestUnknown where there is no such blob, Unauthorized, RegistryUnavailable, RegistryError;
        SizeMismatch, DigestMismatch.
        """
        what = "layer" if media_type.is_layer(descriptor.media_type) else "blob"
        return self._blob(repository, descriptor, what, received)

    def tags(self, repository: str) -> Iterator[str]:
        """Yield the tags of *repository* in the registry's order, each once; what is no tag is left out with a warning.

        Raises: ManifestUnknown where there is no such repository, Unauthorized, RegistryUnavailable, RegistryError,
        also after `MAX_PAGES`, `MAX_TAGS` or `MAX_TAG_BYTES`; InvalidManifest where the list is none.
        """
        asked = self._session.asked("tags", repository)
        root_url = self._session.root_url()
        url: str | None = protocol.tags_url(root_url, repository)
        seen: set[str] = set()
        seen_bytes = 0
        pages: set[int] = set()  # hashes: URLs may have many kilobytes
        while url is not None and hash(url) not in pages:
            if len(pages) == MAX_PAGES:
                raise _endless(asked, MAX_PAGES, "pages", "MAX_PAGES")
            pages.add(hash(url))
            tags, links = retrying(self._retry, functools.partial(self._tags_page, url, repository, asked))
            fresh = [tag for tag in dict.fromkeys(tags) if tag not in seen]
            seen.update(fresh)
            seen_bytes += sum(map(len, fresh))
            yield from fresh
            if len(seen) > MAX_TAGS:
                raise _endless(asked, MAX_TAGS, "tags", "MAX_TAGS")
            if seen_bytes > MAX_TAG_BYTES:
                raise _endless(asked, MAX_TAG_BYTES, "bytes of tags", "MAX_TAG_BYTES")
            following = protocol.next_page(links, url)
            if following is None and fresh and len(tags) >= protocol.TAGS_PER_PAGE:
                # A full page without a link: the registry may not know how to link.
                following = protocol.tags_url(root_url, repository, last=tags[-1])
            if following is not None and origin_of(following) != origin_of(root_url):
                raise RegistryError(f"the tag list of {asked.name} goes on at another host, which is refused")
            url = following

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _manifest(self, repository: str, reference: str | Digest, asked: Asked) -> RawManifest:
        url = protocol.manifest_url(self._session.root_url(), repository, reference)
        headers = {"Accept": ", ".join(media_type.ACCEPT)}
        with contextlib.closing(self._session.get(url, repository, asked, headers=headers)) as response:
            raw = response.read(MAX_MANIFEST_BYTES + 1)
        if len(raw) > MAX_MANIFEST_BYTES:
            raise InvalidManifest(f"manifest {asked.full}", f"expected at most {MAX_MANIFEST_BYTES} bytes, found more")
        expected = reference if isinstance(reference, Digest) else _announced_digest(response)
        actual = Digest.of(raw, expected.algorithm if expected else "sha256")
        if expected is not None and actual != expected:
            raise DigestMismatch("manifest", str(expected), str(actual))
        return RawManifest(media_type.essence(response.headers.get("content-type", "")), raw, actual)

    def _tags_page(self, url: str, repository: str, asked: Asked) -> tuple[tuple[str, ...], tuple[str, ...]]:
        headers = {"Accept": "application/json"}
        with contextlib.closing(self._session.get(url, repository, asked, headers=headers)) as response:
            raw = response.read(protocol.MAX_TAGS_BODY_BYTES + 1)
            links = response.header_values("link")
        tags, others = protocol.parse_tags(raw, what=f"tag list of {asked.name}")
        for other in others[:10]:
            _log.warning("%s lists '%s' as a tag, which is none", asked.name, printable(other, limit=60))
        return tags, links

    def _blob(
        self, repository: str, descriptor: Descriptor, what: str, received: Iterable[bytes] = ()
    ) -> Iterator[bytes]:
        if descriptor.data is not None:
            yield descriptor.data
            return
        self._session.root_url()
        open_at = functools.partial(self.open_blob, repository, descriptor)
        size, policy = descriptor.size, self._retry
        yield from download(open_at, descriptor.digest, size, what=what, policy=policy, received=received)

    def open_blob(self, repository: str, descriptor: Descriptor, offset: int) -> Opened:
        """Return the content of a blob from *offset* on, or from its beginning; see `download`.  Close its body.

        Raises: as `blob`, but nothing is verified yet.
        """
        self._session.root_url()
        asked = self._session.asked("blob", repository, str(descriptor.digest))
        foreign = descriptor.urls if media_type.is_foreign_layer(descriptor.media_type) else ()
        for url in foreign:
            try:
                return _open(functools.partial(self._session.get_foreign, url, asked), offset)
            except RegistryError as error:
                _log.warning("foreign layer %s: %s; trying elsewhere", descriptor.digest.short, error)
        url = protocol.blob_url(self._session.root_url(), repository, descriptor.digest)
        return _open(functools.partial(self._session.get, url, repository, asked), offset)


def _endless(asked: Asked, limit: int, things: str, name: str) -> RegistryError:
    return RegistryError(
        f"the tag list of {asked.name} has more than {limit} {things} ({name}); "
        "'imagefs tags --limit N' prints the first ones, and a tag can be pulled without the list"
    )


class _Get(Protocol):
    def __call__(self, *, headers: Mapping[str, str], accept: Collection[int]) -> Response: ...


def _open(get: _Get, offset: int) -> Opened:
    """Open a blob at *offset*, or from its beginning where the server will not (distribution-spec, "Pulling blobs")."""
    if offset:
        response = get(headers={"Range": f"bytes={offset}-"}, accept=(200, 206, 416))
        found = protocol.parse_content_range(response.headers.get("content-range"))
        if response.status == 206 and found is not None and found.first == offset:
            return Opened(response, offset, found.total)
        if response.status == 200:
            return Opened(response, 0, response.content_length())
        response.close()
    response = get(headers={}, accept=(200,))
    return Opened(response, 0, response.content_length())


def _announced_digest(response: Response) -> Digest | None:
    """Return the digest the registry announces; None where it does not, or in an algorithm not understood."""
    try:
        return Digest.parse(response.headers.get("docker-content-digest", "").strip())
    except InvalidDigest:
        return None
