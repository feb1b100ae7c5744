"""A token server that docker-registry believes: JSON web tokens, signed with openssl.

Source: distribution's "Token Authentication Specification" and "Token Authentication Implementation".
"""

import base64
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

ISSUER, SERVICE = "tokens", "the registry"


@dataclass
class TokenServer:
    """A running server at *realm*; *users* may have tokens, with the password that each has."""

    realm: str
    certificate: Path
    users: dict[str, str]
    given: list[tuple[str, str]] = field(default_factory=list)
    """User and scope of each token."""

    @property
    def configuration(self) -> str:
        """What docker-registry must be told."""
        return (
            f"auth: {{token: {{realm: '{self.realm}', service: '{SERVICE}', issuer: {ISSUER},"
            f" rootcertbundle: {self.certificate}}}}}\n"
        )


@contextlib.contextmanager
def token_server(folder: Path, users: dict[str, str]) -> Iterator[TokenServer]:
    """Run a token server on loopback until the context ends."""
    key, certificate = self_signed(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            kind, _, encoded = self.headers.get("Authorization", "").partition(" ")
            user, _, password = base64.b64decode(encoded).decode().partition(":") if kind == "Basic" else ("", "", "")
            if users.get(user) != password:
                self.send_response(401)
                self.end_headers()
                return
            scope = " ".join(query.get("scope", []))
            server.given.append((user, scope))
            body = json.dumps({"token": signed(key, certificate, user, scope), "expires_in": 300}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = TokenServer(f"http://127.0.0.1:{http.server_port}/token", certificate, users)
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield server
        http.shutdown()
        thread.join()


def self_signed(folder: Path, *, ca: bool = False) -> tuple[Path, Path]:
    """Make a key and a certificate for 127.0.0.1; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    extensions = ["-addext", "subjectAltName=IP:127.0.0.1"] + (["-addext", "basicConstraints=CA:TRUE"] if ca else [])
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
         "-subj", "/CN=127.0.0.1", "-days", "2", *extensions],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


def signed(key: Path, certificate: Path, user: str, scope: str) -> str:
    """Return a token that grants *scope*."""
    der = "".join(certificate.read_text().splitlines()[1:-1])
    access = []
    for part in scope.split():
        kind, name, actions = part.rsplit(":", 2) if part.count(":") == 2 else part.split(":", 2)
        access.append({"type": kind, "name": name, "actions": actions.split(",")})
    now_s = int(time.time())
    head = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
    claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now_s + 300, "nbf": now_s - 10, "iat": now_s}
    text = b".".join(_encoded(json.dumps(part).encode()) for part in (head, {**claims, "jti": "1", "access": access}))
    done = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=text, check=True, capture_output=True)
    return (text + b"." + _encoded(done.stdout)).decode()


def _encoded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
