"""Owners and permissions as a mount's options ask for them."""

import stat
from dataclasses import replace

import pytest

from imagefs.overlay.attributes import Attributes
from imagefs.view.presentation import Presentation

FILE = Attributes(ino=1, mode=stat.S_IFREG | 0o7777, nlink=1, uid=10, gid=20, size=0, blocks=0, mtime_ns=0, rdev=0)


@pytest.mark.parametrize(
    ("presentation", "changes"),
    [
        (Presentation(), {}),
        (Presentation(uid=0), {"uid": 0}),
        (Presentation(gid=0), {"gid": 0}),
        (Presentation(umask=0o700), {"mode": stat.S_IFREG | 0o7077}),
        (Presentation(umask=0o777), {"mode": stat.S_IFREG | 0o7000}),
        (Presentation(1, 2, 0o022), {"uid": 1, "gid": 2, "mode": stat.S_IFREG | 0o7755}),
    ],
)
def test_each_option_changes_what_it_names_and_nothing_else(
    presentation: Presentation, changes: dict[str, int]
) -> None:
    assert presentation.apply(FILE) == replace(FILE, **changes)
    assert presentation.changes_nothing == (not changes)
