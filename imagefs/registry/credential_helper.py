"""Credential helpers: the programs ``docker-credential-NAME`` that keep secrets in a keychain.

Receives a helper's name and a server; hands on the user name and secret the helper has for it.  It must never know who
asks, nor ask for any other server than it was told to.

Source: docker/docker-credential-helpers, README "Development": the server on standard input, JSON on standard output,
failures as text on standard output and a status other than 0.
"""

import contextlib
import json
import os
import re
import selectors
import shutil
import subprocess
import time

from imagefs.errors import Unauthorized, printable

__all__ = ["ask_helper"]

TIMEOUT_S = 60.0
"""Longest wait for a helper; some ask a person to unlock the keychain."""

MAX_OUTPUT_BYTES = 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}", re.ASCII)
_NOT_FOUND = "credentials not found in native keychain"


def ask_helper(name: str, server: str, *, timeout_s: float = TIMEOUT_S) -> tuple[str, str] | None:
    """Return user name and secret that the helper *name* has for *server*, None where it has none.

    Raises: FileNotFoundError where there is no such helper; Unauthorized where the name is none, or the helper fails,
    hangs, or answers something else than the protocol says.
    """
    if not _NAME.fullmatch(name):
        raise Unauthorized(
            f"'{printable(name)}' is no name of a credential helper: expected letters, digits, '-', '_', '.'"
        )
    program = shutil.which(f"docker-credential-{name}")
    if program is None:
        raise FileNotFoundError(f"docker-credential-{name}")
    status, output = _run(program, name, server, timeout_s)
    if status != 0:
        said = output[:4096].decode("utf-8", "replace").strip()
        if _NOT_FOUND in said:
            return None
        raise Unauthorized(
            f"credential helper docker-credential-{name} failed: {printable(said) or f'status {status}'}"
        )
    return _parse(output, name)


def _parse(output: bytes, name: str) -> tuple[str, str] | None:
    try:
        document = json.loads(output)
        username, secret = document["Username"], document["Secret"]
    except (ValueError, RecursionError, KeyError, TypeError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise Unauthorized(
            f"credential helper docker-credential-{name} answered something else than JSON with Username and Secret"
        )
    return (username, secret) if username or secret else None


def _run(program: str, name: str, server: str, timeout_s: float) -> tuple[int, bytes]:
    """Return status and output; both time and output are bounded, also where a child of the helper keeps the pipe."""
    deadline = time.monotonic() + timeout_s
    with subprocess.Popen(
        [program, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(server.encode() + b"\n")
            output = _read(process.stdout.fileno(), deadline, name)
            return process.wait(max(0.1, deadline - time.monotonic())), output
        except subprocess.TimeoutExpired:
            raise _hangs(name) from None
        finally:
            process.kill()


def _read(pipe: int, deadline: float, name: str) -> bytes:
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise _hangs(name)
            piece = os.read(pipe, 65536)
            if not piece:
                return bytes(output)
            output += piece
            if len(output) > MAX_OUTPUT_BYTES:
                raise Unauthorized(
                    f"credential helper docker-credential-{name} wrote more than {MAX_OUTPUT_BYTES} bytes; "
                    "expected one JSON object"
                )


def _hangs(name: str) -> Unauthorized:
    return Unauthorized(
        f"credential helper docker-credential-{name} did not answer in time; call it by hand to see why"
    )
