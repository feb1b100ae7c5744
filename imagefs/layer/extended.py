"""What is said about a member before its own header: pax extended headers and GNU long names.

Receives the bodies of such headers as they come; hands on what they say where they override a header.  It must never
know the header itself.

Of several pax headers before a member the last counts, and GNU long names win over pax ones.  A global pax header is
checked and then ignored, and so is what was said before it.  All this is what Go's archive/tar does: docker,
containerd, podman and umoci know no global headers, and a layer must be here what it is there.
"""

from collections.abc import Mapping

from imagefs.layer import pax

PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK = b"x", b"g", b"L", b"K"
EXTENDED_TYPES = frozenset({PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK})


class Extended:
    """What is said about one member; *present* tells whether anything was."""

    __slots__ = ("long_link", "long_name", "present", "records")

    def __init__(self) -> None:
        self.present = False
        self.records: Mapping[bytes, bytes] = {}
        self.long_name = self.long_link = b""

    def add(self, type_: bytes, body: bytes) -> None:
        """Take the *body* of an extended header of *type_*.

        Raises: InvalidLayer, also for global headers that cannot be read.
        """
        self.present = True
        if type_ == PAX:
            self.records = pax.parse(body)
        elif type_ == GNU_LONG_NAME:
            self.long_name = body.partition(b"\0")[0]
        elif type_ == GNU_LONG_LINK:
            self.long_link = body.partition(b"\0")[0]
        else:
            self.records = pax.parse(body)
            for key in (b"size", b"uid", b"gid"):
                self.number(key, 0)
            self.mtime_ns(0)
            self.forget()

    def forget(self) -> None:
        """Take it that nothing was said."""
        self.present = False
        self.records = {}
        self.long_name = self.long_link = b""

    def name(self, written: bytes) -> bytes:
        """Return the member's name; here and below, an empty pax value stands for what is *written* in the header."""
        return self.long_name or self.records.get(b"path") or written

    def target(self, written: bytes) -> bytes:
        return self.long_link or self.records.get(b"linkpath") or written

    def number(self, key: bytes, written: int) -> int:
        text = self.records.get(key)
        return pax.integer(text, key.decode()) if text else written

    def mtime_ns(self, written: int) -> int:
        text = self.records.get(b"mtime")
        return pax.time_ns(text) if text else written
