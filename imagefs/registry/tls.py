"""Transport security: which hosts are verified, against what, and which may be spoken to without.

Receives a registry's host and what the user said about TLS; hands on answers and the files of ``certs.d``.  It must
never open a connection.

Source: containers-certs.d(5); docker's docs, "Verify repository client with certificates".
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from imagefs.errors import RegistryError
from imagefs.registry.credentials import home

__all__ = ["CertificateFiles", "TlsPolicy", "certificate_files"]


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """What ``certs.d`` has for one host: CAs to trust as well, and pairs of client certificate and key."""

    authorities: tuple[Path, ...] = ()
    client_pairs: tuple[tuple[Path, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """Whether to insist on verified TLS: True and False as the user said, None for the default.

    The default is to insist, except for connections to this machine, where nobody is in between.
    """

    tls_verify: bool | None = None

    def verifies(self, *, is_here: bool) -> bool:
        """Return whether the server's certificate must be good.

        *is_here* says whether the addresses that are connected to are loopback addresses, whatever the host's name.
        """
        return not is_here if self.tls_verify is None else self.tls_verify

    def allows_http(self, *, is_here: bool) -> bool:
        """Return whether plain http may be spoken where the server speaks no https."""
        return not self.verifies(is_here=is_here)


def certificate_files(registry: str, *, folders: tuple[Path, ...] | None = None) -> CertificateFiles:
    """Return what the first of the ``certs.d`` folders that knows *registry* (``host[:port]``) has for it.

    *folders* are the user's own, podman's and docker's, where not given.

    Raises: RegistryError where a client certificate has no key beside it, or a folder cannot be read.
    """
    for folder in _folders() if folders is None else folders:
        found = folder / registry
        try:
            names = sorted(path.name for path in found.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise RegistryError(f"cannot read the certificates in {found}: {error.strerror}") from None
        pairs = []
        for name in names:
            if name.endswith(".cert"):
                certificate = found / name
                key = certificate.with_suffix(".key")
                if not key.exists():
                    raise RegistryError(f"missing key {key} for the client certificate {certificate}")
                pairs.append((certificate, key))
        return CertificateFiles(tuple(found / name for name in names if name.endswith(".crt")), tuple(pairs))
    return CertificateFiles()


def tls_context(files: CertificateFiles, *, verify: bool, bundle: str) -> ssl.SSLContext:
    """Return a context that trusts the system's CAs, those in *bundle* and those in *files*.

    The bundle is for Python builds that do not find the system's.  Not `ssl.create_default_context`: its strictness
    about the form of certificates (from Python 3.13 on) refuses private CAs that every other image tool takes.

    Raises: RegistryError where a file is no certificate or key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if verify:
        context.load_default_certs()
        context.load_verify_locations(bundle)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in files.authorities:
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError):
            raise RegistryError(f"cannot use {path}: expected certificates in PEM form") from None
    for certificate, key in files.client_pairs:
        try:
            context.load_cert_chain(certificate, key, password=b"")
        except (OSError, ssl.SSLError):
            raise RegistryError(f"cannot use the client certificate {certificate} with its key {key}") from None
    return context


def _folders() -> tuple[Path, ...]:
    folder = home()
    own = (folder / ".config/containers/certs.d",) if folder else ()
    return (*own, Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))
