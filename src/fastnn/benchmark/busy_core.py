"""One core half taken by somebody else: what a laptop, a shared server or a CPU of unequal cores does to a benchmark."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

COMPETITOR = """
import os, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
busy, idle = float(sys.argv[1]), float(sys.argv[2])
print("ready", flush=True)
while os.getppid() == int(sys.argv[3]):
    end = time.perf_counter() + busy
    while time.perf_counter() < end:
        pass
    time.sleep(idle)
"""
"""It ends by itself when its parent is gone."""


@contextmanager
def busy_core(busy: float = 200e-6, idle: float = 100e-6) -> Iterator[int]:
    """While the block runs, a process keeps the last CPU that this one may use busy for about half of the time: `busy` seconds,
    then at least `idle` seconds asleep.

    The number of that process comes with the block. The operating system decides how the core is shared: on Linux the
    competitor, which sleeps so often, gets what it asks for. Where a process cannot be pinned, it takes any core.

    >>> with busy_core() as competitor:
    ...     assert competitor != os.getpid()
    """
    times = [str(busy), str(idle), str(os.getpid())]
    process = subprocess.Popen([sys.executable, "-c", COMPETITOR, *times], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()
