"""The disk kept ahead of those who read on through a layer.

Receives where in which file something was just read; has what comes next read into the system's memory, from a thread
of its own.  The system's own read-ahead knows one file at a time and starts small; whoever walks through an image
reads one file after the other, and in a layer's tar they lie one behind the other.
"""

import contextlib
import os
import queue
import threading

_NEAR_BYTES = 1024 * 1024
"""How far after the last read the next may begin and still be one that reads on."""
_PATIENCE_BYTES = 512 * 1024
"""How much must have been read on before more is expected."""
_AHEAD_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024


class ReadAhead:
    """Not thread-safe: `passed` is for one thread."""

    def __init__(self) -> None:
        self._places: dict[int, tuple[int, int, int]] = {}
        self._wanted: queue.SimpleQueue[tuple[int, int, int]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def passed(self, descriptor: int, start: int, size: int) -> None:
        """Take note that *size* bytes from byte *start* of the file open as *descriptor* were read."""
        end = start + size
        last, began, ahead = self._places.get(descriptor, (start, start, start))
        if not last <= start <= last + _NEAR_BYTES:
            began = ahead = start
        elif end - began > _PATIENCE_BYTES and ahead - end < _AHEAD_BYTES // 2:
            ahead, until = max(ahead, end), end + _AHEAD_BYTES
            self._read(descriptor, ahead, until)
            ahead = until
        self._places[descriptor] = end, began, ahead

    def _read(self, descriptor: int, start: int, end: int) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
            self._thread.start()
        self._wanted.put((descriptor, start, end))

    def _run(self) -> None:
        piece = [bytearray(_PIECE_BYTES)]
        probe = [bytearray(1)]
        while True:
            descriptor, start, end = self._wanted.get()
            # The descriptor may be another file's by now: then something is read for nothing.
            for position in range(start, end, _PIECE_BYTES):
                with contextlib.suppress(OSError):
                    try:
                        os.preadv(descriptor, probe, min(end, position + _PIECE_BYTES) - 1, os.RWF_NOWAIT)
                    except BlockingIOError:
                        os.preadv(descriptor, piece, position)
