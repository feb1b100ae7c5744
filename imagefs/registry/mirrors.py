"""One registry and its mirrors, asked in order, as if they were one.

Receives a reference, what is configured and what the user said; hands on what `RegistryClient` does.  A mirror that is
down, has not got it or refuses is passed over; what a mirror gives is verified like everything else.  Each host gets
the credentials that are stored for it, and nobody else's.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from imagefs.errors import ContentError, RegistryError
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import Digest
from imagefs.oci.reference import Reference
from imagefs.registry.client import RawManifest, RegistryClient
from imagefs.registry.configuration import Configuration, Endpoint, load_configuration
from imagefs.registry.download import Opened, download
from imagefs.registry.retry import RetryPolicy

__all__ = ["Client", "Endpoints", "open_endpoints"]

_Answer = TypeVar("_Answer")

_log = logging.getLogger("imagefs.registry")


class Endpoints:
    """The hosts to ask for one repository, best first; the last is the registry itself.

    Thread-safe, as `RegistryClient` is; close it likewise.  *repository* is not taken from its callers but from the
    endpoint, as it may be another one on each.
    """

    def __init__(self, clients: Sequence[tuple[Endpoint, RegistryClient]], retry: RetryPolicy) -> None:
        self._clients = list(clients)
        self._retry = retry

    def manifest(self, _repository: str, reference: str | Digest) -> RawManifest:
        """Return the manifest or index that a tag or digest names now, as `RegistryClient.manifest` does."""
        return self._first(lambda client, repository: client.manifest(repository, reference))

    def document(self, _repository: str, descriptor: Descriptor, *, limit_bytes: int) -> bytes:
        """Return a small blob, as `RegistryClient.document` does."""
        return self._first(lambda client, repository: client.document(repository, descriptor, limit_bytes=limit_bytes))

    def blob(self, _repository: str, descriptor: Descriptor, received: Iterable[bytes] = ()) -> Iterator[bytes]:
        """Yield a blob, as `RegistryClient.blob` does; where one endpoint breaks off, the next goes on."""
        if descriptor.data is not None:
            yield descriptor.data
            return
        opened = itertools.count()

        def open_at(offset: int) -> Opened:
            return self._first(
                lambda client, repository: client.open_blob(repository, descriptor, offset), skipped=next(opened)
            )

        size, policy = descriptor.size, self._retry
        yield from download(open_at, descriptor.digest, size, what="layer", policy=policy, received=received)

    def tags(self, _repository: str) -> Iterator[str]:
        """Yield the tags that the registry itself lists, as `RegistryClient.tags` does: a mirror may know fewer."""
        endpoint, client = self._clients[-1]
        return client.tags(endpoint.repository)

    def close(self) -> None:
        """Close all connections."""
        for _, client in self._clients:
            client.close()

    def _first(self, ask: Callable[[RegistryClient, str], _Answer], *, skipped: int = 0) -> _Answer:
        """Return what the first endpoint answers that does; *skipped* of them have their turn last.

        Raises: what the registry itself raised, where all fail.
        """
        turn = skipped % len(self._clients)
        failures: dict[RegistryClient, RegistryError | ContentError] = {}
        for endpoint, client in (*self._clients[turn:], *self._clients[:turn]):
            try:
                return ask(client, endpoint.repository)
            except (RegistryError, ContentError) as error:
                failures[client] = error
                _log.debug("%s/%s is passed over: %s", endpoint.registry, endpoint.repository, error)
        raise failures[self._clients[-1][1]]


Client = RegistryClient | Endpoints


def open_endpoints(
    reference: Reference,
    *,
    tls_verify: bool | None,
    authfile: Path | None,
    retry: RetryPolicy | None = None,
    configuration: Configuration | None = None,
) -> Client:
    """Return a client for the repository of *reference*: of its registry, or of mirrors and the registry.

    *tls_verify*, *authfile* and *retry* as in `RegistryClient`; what the user says of TLS counts more than what is
    configured.

    Raises: ConfigurationInvalid; RegistryError, if the registry is blocked.
    """
    found = (configuration or load_configuration()).endpoints(reference)
    policy = retry or RetryPolicy()

    def client(endpoint: Endpoint) -> RegistryClient:
        verify = tls_verify if tls_verify is not None else (False if endpoint.insecure else None)
        # A mirror that is down must not hold up who can be served elsewhere.
        patience = replace(policy, attempts=1) if endpoint.is_mirror else policy
        return RegistryClient(endpoint.registry, tls_verify=verify, authfile=authfile, retry=patience)

    (last,) = found[-1:]
    if len(found) == 1 and (last.registry, last.repository) == (reference.registry, reference.repository):
        return client(last)
    for endpoint in found:
        _log.debug("%s is asked for at %s/%s", reference.familiar, endpoint.registry, endpoint.repository)
    return Endpoints([(endpoint, client(endpoint)) for endpoint in found], policy)
