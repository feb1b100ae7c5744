"""What a person sees while images arrive.

Receives events from pull and load; hands on lines, or on a terminal bars.  The only module that imports rich, and only
when there is a terminal to draw on.  It must never decide anything.

Lines are docker's, on standard output: one per layer and phase, never one per tick, so that logs stay readable.
Warnings go to standard error.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TextIO

from imagefs.oci.descriptor import Descriptor
from imagefs.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.text import Text

_PULLING = "Pulling fs layer"
_EXISTS = "Already exists"
_WAITING = "Waiting"
_RESUMING = "Resuming"
_RESTARTING = "What was kept is damaged, downloading from the beginning"
_COMPLETE = "Pull complete"

_LINE_CHARACTERS = 1000
"""Longest line: ours are shorter, what an archive or registry adds has no bound."""
_LEAST_BAR, _MOST_BAR = 6, 24
_ROOM_FOR_BARS = 58
"""Characters that a layer's name and phase, a short bar and amounts take."""
_ROOM_FOR_RATES = 80
"""With rate and remaining time, too."""


class LayerReporter(Protocol):
    """Told about the layers of one image, from several threads."""

    def begin(self, layer: Descriptor) -> None:
        """*layer* is going to be fetched."""

    def exists(self, layer: Descriptor) -> None:
        """*layer* need not be fetched."""

    def wait(self, layer: Descriptor) -> None:
        """*layer* is being fetched by somebody else."""

    def resume(self, layer: Descriptor, count: int) -> None:
        """The first *count* bytes of *layer* are there; they are counted as they are read again."""

    def restart(self, layer: Descriptor) -> None:
        """What was there of *layer* is damaged; all of it is fetched again."""

    def advance(self, layer: Descriptor, count: int) -> None:
        """*count* more bytes of *layer*, as it is stored at the source, have arrived."""

    def complete(self, layer: Descriptor) -> None:
        """*layer* is in the store."""


class Reporter:
    """Writes what happens to *out* and warnings to *err*, a line each.

    Lines may quote an archive or registry: characters that are not printable are escaped here.

    *quiet* leaves only `result` and `warn`.  *layer_lines* says whether layers are worth lines of their own where no
    bars can be drawn; bars are drawn on a terminal.
    """

    def __init__(self, out: TextIO, err: TextIO, *, quiet: bool = False, layer_lines: bool = True) -> None:
        self._out = out
        self._err = err
        self._quiet = quiet
        self._layer_lines = layer_lines

    def note(self, text: str) -> None:
        """Say what goes on, unless quiet."""
        if not self._quiet:
            print(printable(text, limit=_LINE_CHARACTERS), file=self._out, flush=True)

    def result(self, text: str) -> None:
        """Say what came out."""
        print(printable(text, limit=_LINE_CHARACTERS), file=self._out, flush=True)

    def warn(self, text: str) -> None:
        """Say what should not go unnoticed; for example what is left out."""
        print(f"warning: {printable(text, limit=_LINE_CHARACTERS)}", file=self._err, flush=True)

    @contextlib.contextmanager
    def layers(self) -> Iterator[LayerReporter]:
        """Give a reporter for the layers of one image, for as long as the context lasts."""
        if self._quiet:
            yield _Silent()
        elif self._out.isatty() and os.environ.get("TERM") != "dumb":
            with _bars(self._out) as progress:
                yield _Bars(progress)
        elif self._layer_lines:
            yield _Lines(self._out)
        else:
            yield _Silent()


class _Silent:
    def begin(self, layer: Descriptor) -> None:
        pass

    def exists(self, layer: Descriptor) -> None:
        pass

    def wait(self, layer: Descriptor) -> None:
        pass

    def resume(self, layer: Descriptor, count: int) -> None:
        pass

    def restart(self, layer: Descriptor) -> None:
        pass

    def advance(self, layer: Descriptor, count: int) -> None:
        pass

    def complete(self, layer: Descriptor) -> None:
        pass


class _Lines(_Silent):
    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def begin(self, layer: Descriptor) -> None:
        self._line(layer, _PULLING)

    def exists(self, layer: Descriptor) -> None:
        self._line(layer, _EXISTS)

    def wait(self, layer: Descriptor) -> None:
        self._line(layer, _WAITING)

    def resume(self, layer: Descriptor, count: int) -> None:
        self._line(layer, f"{_RESUMING} after {decimal(count)}")

    def restart(self, layer: Descriptor) -> None:
        self._line(layer, _RESTARTING)

    def complete(self, layer: Descriptor) -> None:
        self._line(layer, _COMPLETE)

    def _line(self, layer: Descriptor, phase: str) -> None:
        with self._lock:
            print(f"{layer.digest.short}: {phase}", file=self._out, flush=True)


@contextlib.contextmanager
def _bars(out: TextIO) -> "Iterator[Progress]":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class AmountColumn(ProgressColumn):
        """What has arrived of how much; in the end only how much."""

        def render(self, task: Task) -> "Text":
            total = decimal(task.total or 0)
            return Text(total if task.finished else f"{decimal(task.completed)} / {total}")

    class RateColumn(ProgressColumn):
        """Rate and remaining time while a layer arrives, nothing afterwards."""

        def render(self, task: Task) -> "Text":
            if task.finished or not task.speed:
                return Text("")
            remaining = f" {task.time_remaining:.0f} s left" if task.time_remaining is not None else ""
            return Text(f"{decimal(task.speed)}/s{remaining}")

    console = Console(file=out)
    one_line = Column(no_wrap=True)
    columns: list[ProgressColumn] = [
        TextColumn("{task.fields[label]}: {task.description}", markup=False, table_column=one_line)
    ]
    if console.width < _ROOM_FOR_BARS:
        columns.append(TextColumn("{task.percentage:>3.0f} %", table_column=Column(no_wrap=True)))
    else:
        has_rate = console.width >= _ROOM_FOR_RATES
        rest = console.width - (_ROOM_FOR_RATES - _LEAST_BAR if has_rate else _ROOM_FOR_BARS - _LEAST_BAR)
        columns.append(BarColumn(bar_width=max(_LEAST_BAR, min(_MOST_BAR, rest))))
        columns.append(AmountColumn(table_column=Column(no_wrap=True)))
        if has_rate:
            columns.append(RateColumn(table_column=Column(no_wrap=True)))
    with Progress(*columns, console=console, refresh_per_second=8) as progress:
        yield progress


class _Bars(_Silent):
    """One bar a layer, and one for all of them together where there are several."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._tasks: dict[Descriptor, TaskID] = {}
        self._total: TaskID | None = None
        self._total_bytes = 0

    def begin(self, layer: Descriptor) -> None:
        size = max(layer.size, 0)
        self._total_bytes += size
        self._tasks[layer] = self._add(layer, _PULLING, size, 0)
        if len(self._tasks) == 2:
            self._total = self._progress.add_task("all layers", total=self._total_bytes, label="total       ")
        elif self._total is not None:
            self._progress.update(self._total, total=self._total_bytes)

    def exists(self, layer: Descriptor) -> None:
        self._add(layer, _EXISTS, max(layer.size, 1), max(layer.size, 1))

    def wait(self, layer: Descriptor) -> None:
        self._progress.update(self._tasks[layer], description=_WAITING)

    def resume(self, layer: Descriptor, count: int) -> None:
        self._progress.update(self._tasks[layer], description=_RESUMING)

    def restart(self, layer: Descriptor) -> None:
        done = int(self._progress.tasks[self._tasks[layer]].completed)
        self._progress.update(self._tasks[layer], description=_PULLING, completed=0)
        if self._total is not None:
            self._progress.advance(self._total, -done)

    def advance(self, layer: Descriptor, count: int) -> None:
        self._progress.advance(self._tasks[layer], count)
        if self._total is not None:
            self._progress.advance(self._total, count)

    def complete(self, layer: Descriptor) -> None:
        self._progress.update(self._tasks[layer], description=_COMPLETE)

    def _add(self, layer: Descriptor, phase: str, total: int, completed: int) -> "TaskID":
        return self._progress.add_task(phase, total=total, completed=completed, label=layer.digest.short)


def decimal(count: float) -> str:
    """Return *count* bytes in decimal units with one digit behind the point: ``12.3 MB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
