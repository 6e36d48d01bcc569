"""Locks that a forked child finds free, whoever held them in the parent.

A fork copies a locked lock but not the thread that would release it, so the child would wait for ever. Whatever these locks
guard is changed by single assignments and dictionary operations, and is whole at every moment; hence the child
can go on with new locks.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from weakref import ref


class Lock:
    """A re-entrant lock for a `with` block; `acquire` and `release` run no line of Python, in which a signal could be handled.

    >>> with Lock():
    ...     pass
    """

    __slots__ = ("__weakref__", "acquire", "release")

    def __init__(self) -> None:
        self.renew()
        _locks.add(ref(self, _locks.discard))

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def renew(self) -> None:
        """Frees the lock; for a process in which this thread is the only one."""
        lock = threading.RLock()
        self.acquire, self.release = lock.acquire, lock.release


_locks: set[ref[Lock]] = set()
"""A set of our own: a WeakSet's runs a line of Python for each lock that dies, and a Ctrl-C that is handled in it, while
plans are collected, is lost."""


def _renew_all() -> None:
    for reference in list(_locks):
        lock = reference()
        if lock is not None:
            lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
