r"""``--format``: the part of Go's templates that people use with docker and podman.

Receives a template's text; hands on a function from a record to text.  Knows nothing of images.

Understood are ``{{.Field}}`` and deeper ``{{.Config.Env}}``, ``{{.}}``, texts and numbers, pipelines such as
``{{.ID | upper}}``, the functions of `FUNCTIONS`, ``if``/``else if``/``else``/``end``, ``range``/``else``/``end``,
comments, and ``{{-`` and ``-}}``, which take the white space beside them away.  ``\t`` and ``\n`` outside of actions
are what they are in docker.  Anything else is an error that names it.  Unlike there, control characters in values are
printed escaped, so that no value forges a line or reaches a terminal raw; ``json`` gives values whole.

Source: Go, text/template; docker/cli, templates/templates.go.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imagefs.errors import InvalidTemplate
from imagefs.text import did_you_mean, json_text, printable

MAX_TEXT_CHARACTERS = 64 * 1024
MAX_DEPTH = 50
"""Of blocks and parentheses inside each other."""

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<field>\.[A-Za-z0-9_.]*)"""
    r"""|(?P<word>[A-Za-z][A-Za-z0-9]*)|(?P<mark>[|()]))""",
    re.DOTALL,
)
_WORDS = {"true": True, "false": False, "nil": None}


def _plain(value: object) -> str:
    """Return *value* as Go's templates print it."""
    match value:
        case None:
            return "<no value>"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case Mapping():
            return "map[" + " ".join(f"{key}:{_plain(value[key])}" for key in sorted(value)) + "]"
        case list() | tuple():
            return "[" + " ".join(map(_plain, value)) + "]"
        case _:
            return str(value)


class _Composed(str):
    """Text with white space that the template, not the record, put there: it is printed as it is."""

    __slots__ = ()


def _shown(value: object) -> str:
    """Return *value* as it is printed: control characters of a record are escaped, newlines among them."""
    return value if isinstance(value, _Composed) else printable(_plain(value), limit=None)


def _json(value: object) -> str:
    return json_text(value, compact=True)


def _index(value: Any, *keys: Any) -> object:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, Sequence) and isinstance(key, int) and -1 < key < len(value):
            value = value[key]
        else:
            raise ValueError(f"index: there is no {key!r} in {_plain(value)[:40]}")
    return value


def _printf(form: str, *values: object) -> str:
    rest = list(values)

    def one(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        if not rest:
            raise ValueError("printf: fewer values than places")
        value = rest.pop(0)
        width = found[1]
        text = json_text(value) if found[2] == "q" else _shown(value)
        return text.ljust(int(width[1:])) if width.startswith("-") else text.rjust(int(width or 0))

    return _Composed(re.sub(r"%(-?\d{0,3})([svdq])|%%", one, form))


FUNCTIONS: dict[str, Callable[..., object]] = {
    "json": _json,
    "upper": lambda text: _plain(text).upper(),
    "lower": lambda text: _plain(text).lower(),
    "title": lambda text: _plain(text).title(),
    "len": lambda value: len(value) if value is not None else 0,
    "index": _index,
    "join": lambda values, between: _Composed(_plain(between).join(map(_shown, values or ()))),
    "split": lambda text, at: _plain(text).split(_plain(at)),
    "truncate": lambda text, length: _plain(text)[:length],
    "println": lambda *values: _Composed(" ".join(map(_shown, values)) + "\n"),
    "print": lambda *values: _Composed("".join(map(_shown, values))),
    "printf": _printf,
    "eq": lambda one, *others: any(one == other for other in others),
    "ne": lambda one, other: one != other,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
}


class Open(dict[str, Any]):
    """A mapping whose keys somebody made up, such as labels: to ask for one that is not there is no mistake."""


Value = Callable[[Any], object]
Writer = Callable[[Any, list[str]], None]


@dataclass(slots=True)
class _Block:
    """An ``if`` or ``range`` being read: what it asks, and what comes before and after its ``else``."""

    kind: str
    asked: Value
    then: list[Writer]
    otherwise: list[Writer] | None = None
    is_chained: bool = False


def compiled(text: str) -> Callable[[Any], str]:
    """Return a function that fills *text* in from a record: mappings, sequences, texts and numbers.

    The function raises InvalidTemplate, too, where a record has no such field.

    Raises: InvalidTemplate.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidTemplate(text, f"expected at most {MAX_TEXT_CHARACTERS} characters")
    reading = _Reading(text)
    at = 0
    trim = False
    for action in _ACTION.finditer(text):
        reading.literal(text[at : action.start()], trim_left=trim, trim_right=action[1] is not None)
        reading.action(action[2].strip())
        at, trim = action.end(), action[3] is not None
    if "{{" in text[at:] or "}}" in text[at:]:
        raise InvalidTemplate(text, "a {{ or }} has no counterpart")
    reading.literal(text[at:], trim_left=trim, trim_right=False)
    writers = reading.finish()

    def fill(record: Any) -> str:
        out: list[str] = []
        try:
            _write(writers, record, out)
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise InvalidTemplate(text, str(error)) from None
        return "".join(out)

    return fill


def _write(writers: Sequence[Writer], record: Any, out: list[str]) -> None:
    for write in writers:
        write(record, out)


class _Reading:
    """A template being read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._top: list[Writer] = []
        self._blocks: list[_Block] = []

    def _wrong(self, reason: str) -> InvalidTemplate:
        return InvalidTemplate(self._text, reason)

    def _current(self) -> list[Writer]:
        if not self._blocks:
            return self._top
        block = self._blocks[-1]
        return block.then if block.otherwise is None else block.otherwise

    def literal(self, text: str, *, trim_left: bool, trim_right: bool) -> None:
        text = text.lstrip() if trim_left else text
        text = text.rstrip() if trim_right else text
        text = text.replace("\\t", "\t").replace("\\n", "\n")
        if text:
            self._current().append(lambda _, out: out.append(text))

    def action(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if text.startswith("/*"):
            return
        if word in ("if", "range"):
            self._open(word, rest)
        elif text == "else" or text.startswith("else if "):
            if not self._blocks or self._blocks[-1].otherwise is not None:
                raise self._wrong("an else belongs to no if or range")
            self._blocks[-1].otherwise = []
            if text != "else":
                self._open("if", text.removeprefix("else if "))
                self._blocks[-1].is_chained = True
        elif text == "end":
            if not self._blocks:
                raise self._wrong("an end belongs to no if or range")
            self._close()
        else:
            value = self._value(text)
            self._current().append(lambda record, out: out.append(_shown(value(record))))

    def finish(self) -> list[Writer]:
        if self._blocks:
            raise self._wrong(f"a {self._blocks[-1].kind} has no end")
        return self._top

    def _open(self, kind: str, rest: str) -> None:
        if len(self._blocks) >= MAX_DEPTH:
            raise self._wrong(f"expected at most {MAX_DEPTH} blocks inside each other")
        self._blocks.append(_Block(kind, self._value(rest), []))

    def _close(self) -> None:
        block = self._blocks.pop()
        otherwise = block.otherwise or []

        def choose(record: Any, out: list[str]) -> None:
            _write(block.then if block.asked(record) else otherwise, record, out)

        def repeat(record: Any, out: list[str]) -> None:
            found = block.asked(record)
            if isinstance(found, Mapping):
                found = [found[key] for key in sorted(found)]
            if not isinstance(found, list | tuple | None):
                raise TypeError(f"range: {_plain(found)[:40]} is no list")
            for item in found or ():
                _write(block.then, item, out)
            if not found:
                _write(otherwise, record, out)

        self._current().append(choose if block.kind == "if" else repeat)
        if block.is_chained:
            self._close()

    # ---- values ----

    def _value(self, text: str) -> Value:
        tokens = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._wrong(f"'{text[at:].strip()[:40]}' is not understood")
            tokens.append((str(found.lastgroup), str(found[found.lastgroup or 0])))
            at = found.end()
        if not tokens:
            raise self._wrong("an action is empty")
        tokens.reverse()
        value = self._pipeline(tokens, 0)
        if tokens:
            raise self._wrong(f"'{tokens[-1][1]}' was not expected there")
        return value

    def _pipeline(self, tokens: list[tuple[str, str]], depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise self._wrong(f"expected at most {MAX_DEPTH} parentheses inside each other")
        value = self._command(tokens, depth, None)
        while tokens and tokens[-1] == ("mark", "|"):
            tokens.pop()
            value = self._command(tokens, depth, value)
        return value

    def _command(self, tokens: list[tuple[str, str]], depth: int, piped: Value | None) -> Value:
        """Read one command; what is *piped* into it is its last argument."""
        if tokens and tokens[-1][0] == "word" and tokens[-1][1] not in _WORDS:
            name = tokens.pop()[1]
            if name not in FUNCTIONS:
                raise self._wrong(f"there is no function '{name}'; known are {', '.join(FUNCTIONS)}")
            arguments = []
            while tokens and tokens[-1] not in (("mark", "|"), ("mark", ")")):
                arguments.append(self._operand(tokens, depth))
            if piped is not None:
                arguments.append(piped)
            function = FUNCTIONS[name]
            return lambda record: function(*(argument(record) for argument in arguments))
        if piped is not None:
            raise self._wrong("only a function can come behind |")
        return self._operand(tokens, depth)

    def _operand(self, tokens: list[tuple[str, str]], depth: int) -> Value:
        if not tokens:
            raise self._wrong("a value is missing")
        kind, text = tokens.pop()
        match kind:
            case "text":
                literal = text[1:-1] if text[0] == "`" else json.loads(text.replace("\t", "\\t").replace("\n", "\\n"))
                return lambda _: _Composed(literal)
            case "number":
                number = float(text) if "." in text else int(text)
                return lambda _: number
            case "field":
                return _field([name for name in text.split(".") if name])
            case "word" if text in _WORDS:
                return lambda _: _WORDS[text]
            case "mark" if text == "(":
                value = self._pipeline(tokens, depth + 1)
                if not tokens or tokens.pop() != ("mark", ")"):
                    raise self._wrong("a ( has no )")
                return value
        raise self._wrong(f"'{text}' was not expected there")


def _known(name: str, record: object) -> str:
    if not isinstance(record, Mapping):
        return ""
    return f"{did_you_mean(name, record)}; known are {', '.join(sorted(record))}"


def _field(names: list[str]) -> Value:
    def look(record: Any) -> object:
        for name in names:
            if record is None:
                return None
            if isinstance(record, Open):
                record = record.get(name)
                continue
            if not isinstance(record, Mapping) or name not in record:
                raise ValueError(f"there is no field '{name}'{_known(name, record)}")
            record = record[name]
        return record

    return look
