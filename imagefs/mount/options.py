"""Mount options: the comma list behind ``-o``, understood the same way everywhere.

Receives the texts of ``-o``; hands on one frozen `MountOptions`.  Knows no driver and mounts nothing.

``mount`` passes its helper options meant for itself or for systemd, and ``rw`` when nobody asked for anything; they
mean nothing here and are never an error.
"""

import difflib
import grp
import os
import pwd
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagefs.errors import InvalidMountOption
from imagefs.view.presentation import Presentation

WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
"""Flags of open(2) that a mount refuses whatever its options: it is read-only."""

DRIVERS = ("kernel", "fusepy")
DEFAULT_DRIVER = "kernel" if sys.platform == "linux" else "fusepy"


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What was asked for.  None stands for "nobody said"."""

    store: Path | None = None
    image: str | None = None
    driver: str = DEFAULT_DRIVER
    log_file: Path | None = None
    presentation: Presentation = field(default_factory=Presentation)
    allow_other: bool = False
    default_permissions: bool = False
    nonempty: bool = False
    suid: bool = False
    dev: bool = False
    noexec: bool = False
    verify: bool = False
    trust_store: bool = False
    read_write: bool = False
    remount: bool = False


def split_options(text: str) -> list[str]:
    """Return the options in the comma list *text*; commas between double quotes do not separate, and quotes vanish.

    ``a,b="x,y",,c`` gives ``a``, ``b=x,y``, ``c``.  Source: libmount, ul_optstr_next.
    """
    options, current, quoted = [], "", False
    for char in text:
        if char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            options.append(current)
            current = ""
        else:
            current += char
    if quoted:
        raise InvalidMountOption(text, 'a double quote (") is not closed')
    options.append(current)
    return [option for option in options if option]


def _number(what: str, lookup: Callable[[str], int]) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text.isascii() and text.isdigit():
            number = int(text)
            if number < 2**32 - 1:  # (uid_t) -1 stands for "no user"
                return number
            raise ValueError(f"expected a number below {2**32 - 1}")
        try:
            return lookup(text)
        except KeyError:
            raise ValueError(f"there is no {what} '{text}' here; a number would do") from None

    return read


def _umask(text: str) -> int:
    try:
        umask = int(text, 8)
    except ValueError:
        umask = -1
    if not 0 <= umask <= 0o777:
        raise ValueError("expected octal permission bits such as 022")
    return umask


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _driver(text: str) -> str:
    if text not in DRIVERS:
        raise ValueError(f"unknown driver; known: {', '.join(DRIVERS)}")
    return text


def _symlinks(text: str) -> bool:
    if text not in ("keep", "rewrite"):
        raise ValueError("expected keep or rewrite")
    return text == "rewrite"


def _verify(text: str) -> bool:
    if text not in ("never", "open"):
        raise ValueError("expected never or open")
    return text == "open"


_WITH_VALUE: dict[str, Callable[[str], Any]] = {
    "store": _absolute,
    "image": str,
    "driver": _driver,
    "log_file": _absolute,
    "uid": _number("user", lambda name: pwd.getpwnam(name).pw_uid),
    "gid": _number("group", lambda name: grp.getgrnam(name).gr_gid),
    "umask": _umask,
    "symlinks": _symlinks,
    "verify": _verify,
}
_FLAGS: dict[str, tuple[str, bool]] = {
    "ro": ("read_write", False),
    "rw": ("read_write", True),
    "remount": ("remount", True),
    "allow_other": ("allow_other", True),
    "default_permissions": ("default_permissions", True),
    "nonempty": ("nonempty", True),
    "suid": ("suid", True),
    "nosuid": ("suid", False),
    "dev": ("dev", True),
    "nodev": ("dev", False),
    "exec": ("noexec", False),
    "noexec": ("noexec", True),
    "trust-store": ("trust_store", True),
}
# For mount, its relatives and systemd; or, as with all about access times and writing, true of imagefs either way.
_IGNORED = {
    *("_netdev", "nofail", "auto", "noauto", "defaults", "user", "nouser", "users", "nousers"),
    *("owner", "noowner", "group", "nogroup", "comment", "uhelper", "helper", "loud", "silent"),
    *("context", "fscontext", "defcontext", "rootcontext", "iversion", "noiversion"),
    *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
    *("lazytime", "nolazytime", "async", "sync", "dirsync", "mand", "nomand"),
}
_KNOWN = (*_WITH_VALUE, *_FLAGS, *sorted(_IGNORED))


def parse_options(texts: Iterable[str], *, ignore_unknown: bool = False) -> MountOptions:
    """Return what the comma lists *texts* ask for; of an option given twice the later counts.

    *ignore_unknown* is the ``-s`` ("sloppy") of mount.

    Raises: InvalidMountOption.
    """
    found: dict[str, Any] = {}
    for option in (option for text in texts for option in split_options(text)):
        name, separator, value = option.partition("=")
        if name in _WITH_VALUE:
            if not value:
                raise InvalidMountOption(option, f"expected a value, as in {name}=VALUE")
            try:
                found[name] = _WITH_VALUE[name](value)
            except ValueError as error:
                raise InvalidMountOption(option, str(error)) from None
        elif name in _FLAGS and not separator:
            attribute, state = _FLAGS[name]
            found[attribute] = state
        elif name in _IGNORED or name[:2] in ("x-", "X-"):
            continue
        elif not ignore_unknown:
            if name in _FLAGS:
                raise InvalidMountOption(option, f"'{name}' takes no value")
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            raise InvalidMountOption(option, "unknown" + (f"; did you mean '{near[0]}'?" if near else ""))
    presentation = Presentation(
        **{name: found.pop(name, None) for name in ("uid", "gid", "umask")},
        rewrites_symlinks=found.pop("symlinks", False),
    )
    return MountOptions(presentation=presentation, **found)
