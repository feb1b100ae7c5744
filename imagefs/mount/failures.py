"""What goes wrong while a mount is served, told once.

Receives errors; hands on lines of the log.  Somebody who reads a damaged file a thousand times fills no log with it.
"""

import logging

from imagefs.errors import ImagefsError, describe

_MOST_REMEMBERED = 1000

_log = logging.getLogger(__name__)
_told: set[str] = set()


def log_failure(error: Exception, what: str) -> None:
    """Log that *what* failed because of *error*, unless that is a file system's everyday answer, or was said before."""
    if isinstance(error, ImagefsError):
        text = describe(error)
        if text not in _told:
            if len(_told) >= _MOST_REMEMBERED:
                _told.clear()
            _told.add(text)
            _log.error("%s failed: %s", what, text)
    elif not isinstance(error, OSError):
        _log.error("%s failed", what, exc_info=error)
