"""A registry in this process, on loopback, that misbehaves when told to.

It serves what is put into its dicts, records every request, and before answering asks its queue of faults: each is a
function that may answer in its stead, once.  It speaks to proxies' clients as well, so that hosts with any name can be
simulated.
"""

import base64
import contextlib
import json
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from tests.support.built_images import OCI_MANIFEST, BuiltImage, sha256

Fault = Callable[["Handler"], bool]
"""Answers a request and returns True, or returns False to let the registry go on."""


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    client_certificate: bool = False

    @property
    def path(self) -> str:
        return urllib.parse.urlsplit(self.url).path

    @property
    def query(self) -> dict[str, list[str]]:
        return urllib.parse.parse_qs(self.url.partition("?")[2])

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass
class TokenRules:
    """How this server hands out tokens at /token, if anybody asks."""

    user: str | None = None
    password: str = ""
    identity_token: str | None = None
    oauth_status: int = 200
    answer_field: str = "token"
    expires_in: int | None = 300
    issued: int = 0


@dataclass
class Registry:
    """Use as a context manager; everything may be changed while it runs."""

    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    page_size: int | None = None
    basic: tuple[str, str] | None = None
    realm: str | None = None
    challenge: str | None = None
    ranges: bool = True
    extra_headers: dict[str, str] = field(default_factory=dict)
    tokens: TokenRules = field(default_factory=TokenRules)
    valid_tokens: set[str] = field(default_factory=set)
    seen: list[Seen] = field(default_factory=list)
    certificate: Path | None = None
    ask_client_certificate: bool = False
    _faults: list[tuple[str, Fault, bool]] = field(default_factory=list)

    def __enter__(self) -> "Registry":
        registry = self

        class Bound(Handler):
            pass

        Bound.registry = registry
        self._server = _Server(("127.0.0.1", 0), Bound)
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            if self.ask_client_certificate:
                context.load_verify_locations(self.certificate)
                context.verify_mode = ssl.CERT_OPTIONAL
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.certificate else 'http'}://{self.host}"

    def put(self, repository: str, image: BuiltImage, *tags: str) -> None:
        """Serve *image*, by digest and under *tags*."""
        for blob in (image.config, *image.blobs):
            self.blobs[sha256(blob)] = blob
        self.put_manifest(repository, image.manifest, *tags, media_type=OCI_MANIFEST)

    def put_manifest(self, repository: str, raw: bytes, *tags: str, media_type: str) -> None:
        for reference in (sha256(raw), *tags):
            self.manifests[repository, reference] = (media_type, raw)
        self.tags.setdefault(repository, []).extend(tags)

    def fault(self, where: str, *faults: Fault, every_time: bool = False) -> None:
        """Let the next requests whose path contains *where* meet these faults, one each, in order."""
        self._faults += [(where, fault, every_time) for fault in faults]

    def asked(self, where: str) -> list[Seen]:
        return [request for request in self.seen if where in request.path]

    def next_fault(self, path: str) -> Fault | None:
        for entry in self._faults:
            if entry[0] in path:
                if not entry[2]:
                    self._faults.remove(entry)
                return entry[1]
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up, and TLS that fails, are what is tested."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    timeout = 20
    disable_nagle_algorithm = True  # headers and body are two writes: the second would wait 40 ms on kept connections
    registry: Registry

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self.rfile.read(int(self.headers.get("content-length", "0"))))

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**self.registry.extra_headers, **(headers or {})}.items():
            for one in value.split("\n"):
                self.send_header(name, one)
        if not headers or not {"Content-Length", "Transfer-Encoding"} & set(headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def fail(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.answer(status, error_body(code, message), headers)

    def _handle(self, body: bytes) -> None:
        registry = self.registry
        headers = {name.lower(): value for name, value in self.headers.items()}
        shown = isinstance(self.connection, ssl.SSLSocket) and bool(self.connection.getpeercert())
        seen = Seen(self.command, self.path, headers, body, shown)
        registry.seen.append(seen)
        fault = registry.next_fault(seen.path)
        if fault is not None and fault(self):
            return
        if seen.path == "/token":
            self._token(seen)
        elif seen.path.startswith("/v2/"):
            if self._admit(seen):
                self._serve(seen)
        elif seen.path.startswith("/storage/"):
            self._blob(seen, "sha256:" + seen.path.rpartition("/")[2])
        else:
            self.answer(404)

    def _admit(self, seen: Seen) -> bool:
        registry = self.registry
        if registry.basic is not None:
            if seen.authorization == basic(*registry.basic):
                return True
            challenge = 'Basic realm="here"'
        elif registry.realm is not None:
            if (seen.authorization or "").removeprefix("Bearer ") in registry.valid_tokens:
                return True
            scope = f',scope="repository:{repository_of(seen.path)}:pull"' if seen.path != "/v2/" else ""
            challenge = f'Bearer realm="{registry.realm}",service="the service"{scope}'
        else:
            return True
        wanted = registry.challenge if registry.challenge is not None else challenge
        headers = {"WWW-Authenticate": wanted} if wanted else {}
        self.fail(401, "UNAUTHORIZED", "authentication required", headers)
        return False

    def _token(self, seen: Seen) -> None:
        rules = self.registry.tokens
        if seen.method == "POST":
            if rules.oauth_status != 200:
                return self.answer(rules.oauth_status)
            form = urllib.parse.parse_qs(seen.body.decode())
            if form.get("refresh_token") != [rules.identity_token]:
                return self.answer(401, json.dumps({"details": "wrong refresh token"}).encode())
        elif rules.user is not None and seen.authorization != basic(rules.user, rules.password):
            return self.answer(401, json.dumps({"details": "incorrect username or password"}).encode())
        rules.issued += 1
        token = f"token-{rules.issued}-secret"
        self.registry.valid_tokens.add(token)
        document: dict[str, object] = {rules.answer_field: token}
        if rules.expires_in is not None:
            document["expires_in"] = rules.expires_in
        return self.answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _serve(self, seen: Seen) -> None:
        if seen.path == "/v2/":
            return self.answer(200, b"{}")
        repository = repository_of(seen.path)
        kind, _, reference = seen.path.removeprefix(f"/v2/{repository}/").partition("/")
        if kind == "manifests":
            if not any(known == repository for known, _ in self.registry.manifests):
                return self.fail(404, "NAME_UNKNOWN", "repository name not known to registry")
            if (repository, reference) not in self.registry.manifests:
                return self.fail(404, "MANIFEST_UNKNOWN", "manifest unknown")
            media_type, raw = self.registry.manifests[repository, reference]
            announced = {"Content-Type": media_type, "Docker-Content-Digest": sha256(raw)}
            return self.answer(200, raw, announced)
        if kind == "tags":
            return self._tags(repository, seen)
        return self._blob(seen, reference)

    def _tags(self, repository: str, seen: Seen) -> None:
        if repository not in self.registry.tags:
            return self.fail(404, "NAME_UNKNOWN", "repository name not known to registry")
        tags = self.registry.tags[repository]
        last = seen.query.get("last", [""])[0]
        rest = tags[tags.index(last) + 1 :] if last else tags
        page = rest[: self.registry.page_size]
        more = {"Link": f'<{seen.path}?last={page[-1]}>; rel="next"'} if len(page) < len(rest) else {}
        return self.answer(200, json.dumps({"name": repository, "tags": page}).encode(), more)

    def _blob(self, seen: Seen, digest: str) -> None:
        blob = self.registry.blobs.get(digest)
        if blob is None:
            return self.fail(404, "BLOB_UNKNOWN", "blob unknown to registry")
        wanted = seen.headers.get("range")
        if wanted is None or not self.registry.ranges:
            return self.answer(200, blob)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(blob):
            return self.answer(416)
        part = {"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"}
        return self.answer(206, blob[start:], part)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def error_body(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def repository_of(path: str) -> str:
    return path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")[0]


# ---- faults ----


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer with this status; header names with underscores for hyphens."""

    def answer(handler: Handler) -> bool:
        handler.answer(code, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return answer


def refuse(code: int, error: str, message: str, **headers: str) -> Fault:
    """Answer with one error of the distribution protocol."""
    return status(code, error_body(error, message), **headers)


def redirect(url: str, code: int = 307) -> Fault:
    return status(code, Location=url)


def cut(content: bytes, after: int, *, announce: int | None = None) -> Fault:
    """Announce all of *content*, send the first *after* bytes and hang up."""

    def answer(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) if announce is None else announce))
        handler.end_headers()
        handler.wfile.write(content[:after])
        handler.wfile.flush()
        handler.close_connection = True
        return True

    return answer


def endless(piece: bytes = b" " * 65536, *, code: int = 200, **headers: str) -> Fault:
    """Send chunks until the client has enough."""

    def answer(handler: Handler) -> bool:
        handler.send_response(code)
        handler.send_header("Transfer-Encoding", "chunked")
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.close_connection = True
        return True

    return answer


def chunked(content: bytes) -> Fault:
    """Send *content* without announcing its size."""

    def answer(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        if content:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        handler.wfile.write(b"0\r\n\r\n")
        return True

    return answer
