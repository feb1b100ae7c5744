"""An image whose every text tries to deceive a terminal, and a judge of what a command prints."""

import json
import os
import re
import subprocess
import sys
import termios
from pathlib import Path

from tests.support.built_images import image, layout, sha256, write
from tests.support.layers import dir_, file, layer, symlink

CHARACTERS = {
    "escape": "\x1b[31m",
    "bell": "\x07",
    "return": "\r",
    "newline": "\nforged",
    "delete": "\x7f",
    "control sequence introducer, C1": "\x9b31m",
    "next line, C1": "\x85forged",
    "line separator": "\u2028forged",
    "right-to-left override": "\u202egpj",
    "isolate": "\u2066",
    "zero-width space": "\u200b",
    "soft hyphen": "\xad",
    "tag character": "\U000e0041",
    "byte order mark": "\ufeff",
    "private use": "\ue000",
}
DECEPTION = "".join(CHARACTERS.values())
HUNK = "x\n+++ b/etc/shadow\n@@ -1 +1 @@\n+evil"
CREATED_BY = f"RUN {DECEPTION} end"

_NAME = DECEPTION.replace("/", "").encode() + b"\x9b\xff"
_BASE = layer(
    dir_("etc"),
    file("etc/passwd", f"root:x:0:0::/:\nevil{DECEPTION}:x:7:7::/:\n".encode()),
    file("etc/conf", f"one{DECEPTION}\n".encode(), uid=7),
    file(b"etc/" + _NAME, b"old\n", xattrs={f"user.{DECEPTION}".replace("\n", ""): b"\x1b"}),
    file(f"etc/{HUNK}", b"old\n"),
    dir_(b"etc/dir" + _NAME),
    file(b"etc/dir" + _NAME + b"/in", b""),
    symlink("etc/link", _NAME),
)
_TOP = layer(
    file("etc/conf", f"two{DECEPTION}\n".encode()), file(b"etc/" + _NAME, b"new\n"), file(f"etc/{HUNK}", b"new\n")
)
NAME = "/etc/" + os.fsdecode(_NAME)
_SEQUENCES = re.compile(r"\x1b\[(?:1|3[123])?m|\r\x1b\[K|\r(?=\n)")
"""Colors and status lines of imagefs itself, and what a terminal adds to a newline."""


def deceptive_layout(folder: Path) -> Path:
    """Write an OCI layout with the tags 1 and 2, all texts of which deceive, and an entry with an impossible name."""
    config = {
        "Labels": {f"key{DECEPTION}": f"value{DECEPTION}"},
        "Env": [f"A={DECEPTION}"],
        "Cmd": [DECEPTION],
        "User": DECEPTION,
        "WorkingDir": f"/{DECEPTION}",
    }
    images = [
        image(
            tars,
            created=f"2024-01-01T00:00:00Z{DECEPTION}" if number == 0 else "2024-01-01T00:00:00Z",
            author=DECEPTION,
            history=[{"created": DECEPTION, "created_by": CREATED_BY, "comment": DECEPTION}] * len(tars),
            config={**config, "StopSignal": f"{number}{DECEPTION}"},
        )
        for number, tars in enumerate(([_BASE], [_BASE, _TOP]))
    ]
    names = (("1", images[0]), ("2", images[1]), (f"2{DECEPTION}", images[1]))
    descriptors = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": sha256(one.manifest),
            "size": len(one.manifest),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }
        for name, one in names
    ]
    return write(folder, layout(images, descriptors))


def raw_characters(output: bytes) -> list[str]:
    """Return the characters of *output* that no terminal should get, as Python writes them."""
    text = _SEQUENCES.sub("", output.decode("utf-8", "surrogateescape"))
    return sorted({ascii(char) for char in text if not char.isprintable() and char not in "\n\t"})


def json_values(output: bytes) -> list[object]:
    """Return the JSON values in *output*, one after the other."""
    text, values = output.decode().strip(), []
    while text:
        value, end = json.JSONDecoder().raw_decode(text)
        values.append(value)
        text = text[end:].strip()
    return values


def on_terminal(*args: str | Path, env: dict[str, str] | None = None) -> bytes:
    """Run imagefs with a terminal as standard output and error, and return what the terminal gets."""
    master, slave = os.openpty()
    try:
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.ONLCR
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        argv = [sys.executable, "-m", "imagefs", *args]
        environment = {**os.environ, "TERM": "xterm", **(env or {})}
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        output = b""
        while piece := _read(master):
            output += piece
        process.wait(60)
        return output
    finally:
        os.close(master)


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # EIO: the last process that had the terminal ended
        return b""
