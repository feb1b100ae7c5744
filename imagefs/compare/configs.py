"""The differences of two images' configs: what a container would be started with.

Receives two `ImageConfig`; hands on `Setting` values.  Pure.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from imagefs.oci.config import ImageConfig


@dataclass(frozen=True, slots=True)
class Setting:
    """One difference: *name* such as ``Env PATH``, ``Labels version``, ``User``; None where a side has none."""

    name: str
    old: str | None
    new: str | None


def compare_configs(old: ImageConfig, new: ImageConfig) -> Iterator[Setting]:
    """Yield the settings that differ, by name."""
    before, after = _settings(old), _settings(new)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield Setting(name, before.get(name), after.get(name))


def _settings(config: ImageConfig) -> dict[str, str]:
    found = {"Platform": str(config.platform)}
    for key, value in config.container.items():
        if key == "Env" and isinstance(value, list):
            for text in map(str, value):
                name, _, content = text.partition("=")
                found[f"{key} {name}"] = content
        elif isinstance(value, Mapping):  # labels, exposed ports, volumes: the keys are what matters
            for name, content in value.items():
                found[f"{key} {name}"] = content if isinstance(content, str) else json.dumps(content)
        elif value not in (None, "", []):
            found[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found
