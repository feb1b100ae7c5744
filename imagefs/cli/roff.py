"""Manual pages in the roff language of man(7), for groff and mandoc alike.

Receives words and argparse's own description of options; hands on text.  Knows no command.  A well-kept writer from
argparse exists (argparse-manpage), but it can neither mark up a synopsis nor escape what is not ASCII, and its pages do
not pass ``groff -ww``.

Source: groff_man(7), groff_char(7), mandoc's roff(7).
"""

import argparse
import re
from collections.abc import Iterable, Sequence

_LINE_CHARACTERS = 76
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]'\"][.?!]) +(?=[A-Z$~/])")
_SPECIAL = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}


def escaped(text: str) -> str:
    """Return *text* so that it is shown as it is; what it looks like in a program's text it will look like here."""
    return "".join(_SPECIAL.get(char) or (char if char.isascii() else f"\\[u{ord(char):04X}]") for char in text)


def bold(text: str) -> str:
    """Return *text* as what is to be typed literally."""
    return f"\\fB{escaped(text)}\\fR"


def italic(text: str) -> str:
    """Return *text* as what stands for something else."""
    return f"\\fI{escaped(text)}\\fR"


class Page:
    """One manual page being written; `text` is the whole of it."""

    def __init__(self, name: str, section: int, date: str, source: str) -> None:
        self._lines = [f'.TH {escaped(name.upper())} {section} {date} "{escaped(source)}"', ".nh"]

    def text(self) -> str:
        """Return what was written, ended by a newline."""
        return "\n".join(self._lines) + "\n"

    def section(self, heading: str) -> None:
        """Begin a section."""
        self._lines.append(f'.SH "{escaped(heading)}"')

    def subsection(self, heading: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f'.SS "{escaped(heading)}"')

    def name(self, name: str, summary: str) -> None:
        """Write the line that whatis(1) finds."""
        self.section("NAME")
        self._lines.append(f"{escaped(name)} \\- {escaped(summary)}")

    def synopsis(self, command: str, words: Sequence[str]) -> None:
        """Write how *command* is called; *words* are marked up already."""
        self._lines += [f'.SY "{escaped(command)}"', *words, ".YS"]

    def paragraph(self, text: str) -> None:
        """Write prose."""
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")
        self._prose(text)

    def tagged(self, tag: str, text: str) -> None:
        """Write *tag*, which is marked up already, and behind it what it means."""
        self._lines += [".TP", tag]
        self._prose(text or "\u00a0")

    def literal(self, text: str) -> None:
        """Write lines as they are."""
        self._lines += [".RS 4", ".EX", *(self._protected(escaped(line)) for line in text.splitlines())]
        self._lines += [".EE", ".RE"]

    def _prose(self, text: str) -> None:
        for sentence in _SENTENCE_END.split(" ".join(text.split())):
            line = ""
            for word in map(escaped, sentence.split(" ")):
                if line and len(line) + 1 + len(word) > _LINE_CHARACTERS:
                    self._lines.append(self._protected(line))
                    line = word
                else:
                    line = f"{line} {word}" if line else word
            self._lines.append(self._protected(line))

    @staticmethod
    def _protected(line: str) -> str:
        return f"\\&{line}" if line.startswith((".", "\\(aq")) or not line else line


# ---- what argparse knows ----


def _value(action: argparse.Action) -> str:
    """Return what stands for the value of *action*, marked up; nothing where it takes none."""
    if action.nargs == 0:
        return ""
    names = action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper()
    return italic(names if isinstance(names, str) else " ".join(names))


def _call(action: argparse.Action) -> str:
    """Return how *action* is written on a command line, without the brackets that say it may be left out."""
    value = _value(action)
    if action.option_strings:
        flag = bold(action.option_strings[0])
        return f"{flag}\\~{value}" if value else flag
    return f"{value}\\~.\\|.\\|." if action.nargs in ("+", "*") else value


def calls(parser: argparse.ArgumentParser) -> list[str]:
    """Return the words of the synopsis of *parser*, one for each option or argument, marked up."""
    together = {id(action): group for group in parser._mutually_exclusive_groups for action in group._group_actions}
    words: list[str] = []
    for action in parser._actions:
        group = together.get(id(action))
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        if group is not None:
            if action is group._group_actions[0]:
                words.append(f"[{'|'.join(map(_call, group._group_actions))}]")
        elif action.option_strings or action.nargs in ("?", "*"):
            words.append(f"[{_call(action)}]")
        else:
            words.append(_call(action))
    return words


def described(parser: argparse.ArgumentParser) -> Iterable[tuple[str, str]]:
    """Yield a tag and its meaning for each option and argument of *parser* of which something is said."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        if action.option_strings:
            value = _value(action)
            flags = ", ".join(map(bold, action.option_strings))
            yield f"{flags}\\~{value}" if value else flags, formatter._expand_help(action) if action.help else ""
        elif action.help:
            yield _value(action), formatter._expand_help(action)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands of *parser*, in the order of its help, by name and other names."""
    names: dict[argparse.ArgumentParser, list[str]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                names.setdefault(command, []).append(name)
    return {", ".join(called): command for command, called in names.items()}
