"""Debian's docker-registry on loopback, filled by skopeo."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import run

USER, PASSWORD = "somebody", "hunter2-pw"
# bcrypt of the password above, the one hash docker-registry takes.
HTPASSWD = "$2y$05$abcdefghijklmnopqrstuu85xMxFkhnbeWGOsQ8df0JUnErPQcdC6"

_CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"{http}}}
"""
_AUTH = "auth: {{htpasswd: {{realm: here, path: {path}}}}}\n"


@dataclass(frozen=True)
class RealRegistry:
    """A running docker-registry; with *password* it wants Basic authentication."""

    host: str
    password: bool

    def push(self, layout: Path, source_tag: str, name: str) -> None:
        """Copy an image of an OCI layout to ``host/name``, byte for byte."""
        login = ["--dest-creds", f"{USER}:{PASSWORD}"] if self.password else []
        run(
            ["skopeo", "--insecure-policy", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", *login,
             f"oci:{layout}:{source_tag}", f"docker://{self.host}/{name}"]
        )  # fmt: skip


@contextlib.contextmanager
def real_registry(
    folder: Path, *, password: bool = False, tls: tuple[Path, Path] | None = None, more: str = ""
) -> Iterator[RealRegistry]:
    """Run docker-registry with its data below *folder* until the context ends.

    *tls* are a certificate and its key; *more* is put at the end of its configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    http = f", tls: {{certificate: {tls[0]}, key: {tls[1]}}}" if tls else ""
    text = _CONFIG.format(root=folder / "data", port=port, http=http) + more
    if password:
        htpasswd = folder / "htpasswd"
        htpasswd.write_text(f"{USER}:{HTPASSWD}\n")
        text += _AUTH.format(path=htpasswd)
    config = folder / "config.yml"
    config.write_text(text)
    log = folder / "log"
    environ = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["docker-registry", "serve", config],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environ,
        ) as process,
    ):  # fmt: skip
        try:
            _wait_until_ready(port, process, log)
            yield RealRegistry(f"127.0.0.1:{port}", password)
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"docker-registry did not start: {log.read_text(errors='replace')}")
