"""Peak memory of a net in a library: a process of its own, its largest resident size above the one it started with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .net_calls import PEERS, Task, make_call, onnx_file

RUNS = 3
"""The first run makes plans and buffers; the others show that none are added."""


def resident_peak() -> int:
    """The largest resident size of this process so far (since the last reset), in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    import resource

    factor = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor


def forget_peak() -> None:
    """Starts the peak anew from the present size, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # the peak of importing the libraries counts as the start, then


def peak_above_start(contender: str, task: Task, folder: Path) -> int:
    """Bytes at the peak of some runs of a task above the start: libraries imported, nothing of the net made."""
    if PEERS.get(contender) not in (None, "torch"):
        onnx_file(task, folder)  # exported here, so that the process does not need PyTorch
    arguments = [contender, task.net, task.kind, str(task.batch), str(task.threads), str(folder)]
    command = [sys.executable, "-m", "fastnn.benchmark.net_memory", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f"measuring the memory of {contender} failed: {finished.stderr[-2000:]}")
    return int(finished.stdout.split()[-1])


def main(arguments: list[str]) -> None:
    """Prints the peak of one contender."""
    contender, net, kind, batch, threads, folder = arguments
    task = Task(net, kind, int(batch), int(threads))
    package = PEERS.get(contender)
    if package is not None:
        __import__(package)
    elif kind == "training":
        from .. import train  # noqa: F401
    forget_peak()
    start = resident_peak()
    call = make_call(contender, task, Path(folder))
    for _ in range(RUNS):
        call()
    print(resident_peak() - start)


if __name__ == "__main__":
    main(sys.argv[1:])
