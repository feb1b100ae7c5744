"""``python -m imagefs`` is ``imagefs``."""

from imagefs.cli.main import entry

entry()
