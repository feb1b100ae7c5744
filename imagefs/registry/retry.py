"""When to try again, and when to stop.

Receives errors that say of themselves whether they are temporary; hands on a wait, or the error.  It must never know
what is being tried.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from imagefs.errors import RegistryError, RegistryUnavailable

__all__ = ["Attempts", "RetryPolicy", "retrying"]

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after what waits.

    A transfer that moved *progress_bytes* since its last failure has its *attempts* back, so a long download survives
    many short breaks, as of a link that breaks every few hundred kilobytes; *total_attempts* bounds them all the same.
    A registry that asks for a longer wait than *max_delay_s* is not waited for.  *sleep* and *jitter* (a number from 0
    to 1) are there to be replaced in tests.
    """

    attempts: int = 5
    total_attempts: int = 1000
    first_delay_s: float = 1.0
    max_delay_s: float = 60.0
    progress_bytes: int = 64 * 1024
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def delay_s(self, failures: int, asked_s: float | None) -> float:
        """Return how long to wait after the given number of failures in a row; what the registry asked for wins."""
        if asked_s is not None:
            return min(asked_s, self.max_delay_s)
        # Half of it at random: clients that failed together should not come back together.
        return min(self.max_delay_s, self.first_delay_s * 2.0 ** (failures - 1)) * (0.5 + self.jitter() / 2)


class Attempts:
    """The budget of one operation.  Not thread-safe."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._total = 0

    def failed(self, error: RegistryError, *, progress_bytes: int = 0) -> None:
        """Wait until the next attempt, or raise *error* where it is not temporary or the budget is spent.

        *progress_bytes* is what was received since the failure before.
        """
        if progress_bytes >= self._policy.progress_bytes:
            self._failures = 0
        self._failures += 1
        self._total += 1
        asked_s = error.retry_after_s if isinstance(error, RegistryUnavailable) else None
        if not error.temporary or (asked_s is not None and asked_s > self._policy.max_delay_s):
            raise error
        if self._failures >= self._policy.attempts or self._total >= self._policy.total_attempts:
            if self._total > 1:
                error.message = f"{error.message} (gave up after {self._total} attempts)"
            raise error
        self._policy.sleep(self._policy.delay_s(self._failures, asked_s))


def retrying(policy: RetryPolicy, operation: Callable[[], _Result]) -> _Result:
    """Return what *operation* returns, repeating it while it fails for a time.  Raises: what it raised last."""
    attempts = Attempts(policy)
    while True:
        try:
            return operation()
        except RegistryError as error:
            attempts.failed(error)
