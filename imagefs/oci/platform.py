"""Platforms: which of an index's images is meant.

Receives specifiers as typed and platform objects as found in documents; hands on the index of the best offer.  Must
never know what this machine can execute beyond its name: images are looked at here, not run.

Rules and order of preference are those of github.com/containerd/platforms (``Parse``, ``Normalize``, ``Only``).
"""

import platform as _machine
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, replace

from imagefs.errors import InvalidPlatform, printable

__all__ = ["Platform", "select"]

# fmt: off
_KNOWN_OS = frozenset({
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl", "netbsd",
    "openbsd", "plan9", "solaris", "windows", "zos",
})
_KNOWN_ARCHITECTURES = frozenset({
    "386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "ppc64", "ppc64le", "loong64", "mips", "mipsle",
    "mips64", "mips64le", "mips64p32", "mips64p32le", "ppc", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64",
    "wasm",
})
# fmt: on
_MACHINES = {"armv8l": "arm/v8", "armv7l": "arm/v7", "armv6l": "arm/v6", "loongarch64": "loong64"}
"""What uname calls a machine where normalisation does not know the name; armv5* and i?86 are handled apart."""

_COMPONENT = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_OS = re.compile(
    r"(?P<os>[A-Za-z0-9_-]+)(?:\((?P<version>[A-Za-z0-9_.%-]*)(?P<features>(?:\+[A-Za-z0-9_.%-]+)*)\))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image was built for (image-spec image-index.md, "platform").  Text is kept as it was found.

    As documents hold any text here, two instances may mean the same platform and differ; compare `normalized` ones.
    """

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, *, default: "Platform | None" = None) -> "Platform":
        """Return the platform that ``os[(version+feature…)][/architecture[/variant]]`` or ``architecture`` means.

        What is left out is taken from *default*, or the host where that is None.  Names are normalised, except that
        ``arm`` stays without and ``arm64/v8`` with a variant, as they were asked for.

        Raises: InvalidPlatform.
        """
        parts = text.split("/", 3)
        matched = _OS.fullmatch(parts[0])
        if matched is None:
            raise InvalidPlatform(
                text, f"expected os[/architecture[/variant]], found '{printable(parts[0])}' as the os"
            )
        for part in parts[1:]:
            if not _COMPONENT.fullmatch(part):
                found = f"'{printable(part)}'" if part else "nothing behind a '/'"
                raise InvalidPlatform(text, f"expected os[/architecture[/variant]], found {found}")
        os = _normal_os(matched["os"])
        version = _decoded(text, matched["version"] or "")
        features = tuple(f for f in (_decoded(text, raw) for raw in (matched["features"] or "").split("+")) if f)
        if len(parts) > 3:
            raise InvalidPlatform(text, "expected os[/architecture[/variant]], found more than three parts")
        if len(parts) == 1:
            base = default if default is not None else cls.host()
            if os in _KNOWN_OS:
                variant = base.variant if (base.architecture, base.variant) != ("arm", "v7") else ""
                return cls(os, base.architecture, variant, version, features)
            architecture, variant = _normal_architecture(text, "")
            if architecture not in _KNOWN_ARCHITECTURES:
                raise InvalidPlatform(text, "unknown operating system or architecture; write it as os/architecture")
            return cls(base.os, architecture, "" if (architecture, variant) == ("arm", "v7") else variant)
        architecture, variant = _normal_architecture(parts[1], parts[2] if len(parts) == 3 else "")
        if len(parts) == 2 and (architecture, variant) == ("arm", "v7"):
            variant = ""
        if len(parts) == 3 and (architecture, variant) == ("arm64", ""):
            variant = "v8"
        return cls(os, architecture, variant, version, features)

    @classmethod
    def host(cls) -> "Platform":
        """Return the platform to pull for when nothing is said: linux, for this machine's architecture.

        Linux whatever runs here, as hardly any image is made for another system and none needs to run.  An amd64
        machine is taken for its first level (no variant), which every such machine runs.
        """
        machine = _machine.machine().lower()
        if machine.startswith("armv5"):
            machine = "arm/v5"
        elif re.fullmatch(r"i[3-6]86", machine):
            machine = "386"
        else:
            machine = _MACHINES.get(machine, machine)
        architecture, _, variant = machine.partition("/")
        return cls("linux", architecture, variant).normalized()

    def normalized(self) -> "Platform":
        """Return this platform under its canonical names: ``amd64`` for ``x86_64``, ``arm/v7`` for ``armhf``, …"""
        architecture, variant = _normal_architecture(self.architecture, self.variant)
        features = tuple(sorted(set(self.os_features)))
        return Platform(_normal_os(self.os), architecture, variant, self.os_version, features)

    def preference(self) -> tuple["Platform", ...]:
        """Return, best first and normalised, this platform and what a machine of it also runs.

        amd64/vN: each lower level, then 386.  arm/vN: down to v5.  arm64/v9.x: down to v9, then the v8.x it includes,
        down to v8; then arm/v8 and lower.
        """
        this = self.normalized()
        match this.architecture:
            case "amd64":
                # Normalisation writes v1 as no variant; levels beyond 9 are no more than a name.
                lower = [f"v{level}" for level in range(_level(this.variant) - 1, 0, -1)]
                return (
                    this,
                    *(replace(this, variant=variant).normalized() for variant in lower),
                    replace(this, architecture="386", variant=""),
                )
            case "arm":
                return this, *(replace(this, variant=f"v{level}") for level in range(_level(this.variant) - 1, 4, -1))
            case "arm64":
                variants = _arm64_variants(this.variant)
                if not variants:
                    return (this,)
                return (
                    *(replace(this, variant=variant).normalized() for variant in variants),
                    *replace(this, architecture="arm", variant="v8").preference(),
                )
        return (this,)

    def __str__(self) -> str:
        """Return the specifier that `parse` understands: ``linux/arm/v7``, ``windows(10.0.17763)/amd64``."""
        if not self.os:
            return "unknown"
        options = _encoded(self.os_version)
        options += "".join(f"+{_encoded(feature)}" for feature in sorted(set(self.os_features)) if feature)
        os = f"{self.os}({options})" if options else self.os
        return "/".join(part for part in (os, self.architecture, self.variant) if part)


def select(wanted: Platform, offered: Sequence[Platform | None], *, same_architecture: bool = False) -> int | None:
    """Return the position in *offered* of what suits *wanted* best, or None where nothing does.

    The order is that of `Platform.preference`; among equals the offer with most of the wanted OS features, then the
    first in order, wins.  *same_architecture* leaves out 386 for amd64 and arm for arm64.  An offer with features that
    are not wanted does not suit; an OS version counts only for windows, by its first three numbers.

    None in *offered* stands for an entry that does not say its platform and is never selected: where this returns
    None, the caller may look at the configs of those.  ``unknown/unknown`` (an attestation) is never selected either.
    """
    known = [None if platform is None else platform.normalized() for platform in offered]
    for preferred in wanted.preference():
        if same_architecture and preferred.architecture != wanted.normalized().architecture:
            continue
        best: int | None = None
        most_features = -1
        for i, platform in enumerate(known):
            if platform is not None and _suits(preferred, platform) and len(platform.os_features) > most_features:
                best, most_features = i, len(platform.os_features)
        if best is not None:
            return best
    return None


def _suits(wanted: Platform, offered: Platform) -> bool:
    """Return whether *offered* is *wanted* itself; both are normalised."""
    if (wanted.os, wanted.architecture, wanted.variant) != (offered.os, offered.architecture, offered.variant):
        return False
    if "unknown" in (offered.os, offered.architecture):
        return False
    features = set(offered.os_features)
    if wanted.os == "windows":
        features.discard("win32k")  # as containerd: every Windows that is not a nano server has it, and few ask for it
        if wanted.os_version and offered.os_version and _build(wanted.os_version) != _build(offered.os_version):
            return False
    return features <= set(wanted.os_features)


def _build(os_version: str) -> list[str]:
    return os_version.split(".")[:3]


def _level(variant: str) -> int:
    return int(variant[1:]) if re.fullmatch(r"v[0-9]", variant, re.ASCII) else 0


def _arm64_variants(variant: str) -> list[str]:
    """Return the arm64 variants that *variant* includes, best first; empty where it is not a known one."""
    matched = re.fullmatch(r"v([89])(?:\.([0-9]))?", variant or "v8", re.ASCII)
    if matched is None:
        return []
    major, minor = int(matched[1]), int(matched[2] or 0)
    versions = [(major, lower) for lower in range(minor, -1, -1)]
    if major == 9:
        # The Arm manual: v9.0 has all of v8.5, v9.1 all of v8.6, …; v8 ends with v8.9.
        versions += [(8, lower) for lower in range(min(minor + 5, 9), -1, -1)]
    return [f"v{major}.{minor}" if minor else f"v{major}" for major, minor in versions]


def _normal_os(os: str) -> str:
    os = os.lower()
    return "darwin" if os == "macos" else os


def _normal_architecture(architecture: str, variant: str) -> tuple[str, str]:
    architecture, variant = architecture.lower(), variant.lower()
    match architecture:
        case "i386":
            return "386", ""
        case "x86_64" | "x86-64" | "amd64":
            return "amd64", "" if variant == "v1" else variant
        case "aarch64" | "arm64":
            return "arm64", {"8": "", "v8": "", "v8.0": "", "9": "v9", "9.0": "v9", "v9.0": "v9"}.get(variant, variant)
        case "armhf":
            return "arm", "v7"
        case "armel":
            return "arm", "v6"
        case "arm":
            return "arm", {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    return architecture, variant


def _encoded(option: str) -> str:
    """Return *option* with everything escaped that the specifier syntax does not allow inside the parentheses."""
    return urllib.parse.quote(option, safe="", errors="backslashreplace").replace("~", "%7E")


def _decoded(text: str, option: str) -> str:
    """Return *option* with its percent escapes undone."""
    if "%" not in option:
        return option
    if re.search(r"%(?![0-9A-Fa-f]{2})", option):
        raise InvalidPlatform(text, f"expected two hex digits behind each '%', found '{printable(option)}'")
    try:
        decoded = urllib.parse.unquote(option, errors="strict")
    except UnicodeDecodeError:
        raise InvalidPlatform(text, f"'{printable(option)}' does not stand for UTF-8 text") from None
    if not decoded.isprintable():
        raise InvalidPlatform(text, f"'{printable(option)}' stands for control characters")
    return decoded
