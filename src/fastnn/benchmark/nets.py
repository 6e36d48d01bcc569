"""Whole nets against the libraries installed, in turn and in one run: time, images a second, peak memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np

from ..models import NETS
from ..settings import get_num_threads, set_num_threads
from .net_calls import INFERENCE, Call, Task, installed, make_call, torch_state
from .net_memory import peak_above_start
from .timing import Timing, alternate

AGREEMENT = 1e-3
"""Largest difference of two libraries' outputs that is taken for rounding, relative to the largest output."""


@dataclass(frozen=True)
class NetRow:
    """One task, all contenders."""

    task: Task
    times: dict[str, Timing]
    peak_bytes: dict[str, int]
    """Above the start of the process, where it was asked for."""

    @property
    def title(self) -> str:
        return f"{self.task.net} {self.task.kind} batch {self.task.batch}"

    @property
    def best_peer(self) -> str | None:
        peers = [name for name in self.times if name != "fastnn"]
        return min(peers, key=lambda name: self.times[name].median, default=None)

    @property
    def ratio(self) -> float | None:
        """The best peer's median over ours: above 1 we are faster."""
        peer = self.best_peer
        return None if peer is None else self.times[peer].median / self.times["fastnn"].median

    def to_json(self) -> dict[str, Any]:
        images = {name: self.task.batch / timing.median for name, timing in self.times.items()}
        return {**asdict(self), "images_per_second": images, "best_peer": self.best_peer, "ratio": self.ratio}


def _check_agreement(task: Task, calls: dict[str, Call]) -> None:
    """All contenders compute the same net: inference with PyTorch's weights gives PyTorch's outputs."""
    if "torch" not in calls or task.kind != INFERENCE:
        return
    expected = calls["torch"]()
    scale = np.abs(expected).max()
    for name, call in calls.items():
        difference = np.abs(call() - expected).max() / scale
        if not difference < AGREEMENT:
            raise AssertionError(f"{name} disagrees with PyTorch on {task}: relative difference {difference:.1e}")


def measure_task(task: Task, contenders: Sequence[str], seconds: float, folder: Path, memory: bool) -> NetRow:
    """All contenders of one task, in turn."""
    before = get_num_threads()
    state = torch_state(task.net) if any(name.startswith("torch") for name in contenders) else None
    try:
        calls = {name: make_call(name, task, folder, state) for name in contenders}
        _check_agreement(task, calls)
        times = alternate(calls, seconds, rounds=7)
    finally:
        set_num_threads(before)
    peaks = {name: peak_above_start(name, task, folder) for name in contenders} if memory else {}
    return NetRow(task, times, peaks)


def tasks_of(
    names: Sequence[str], kinds: Sequence[str], batches: Sequence[int] | None, threads: Sequence[int]
) -> list[Task]:
    """All that is to be measured; without `batches` with those that NETS names for each net and kind of run."""
    return [
        Task(name, kind, batch, count)
        for name in names
        for kind in kinds
        for batch in batches or (NETS[name].inference if kind == INFERENCE else NETS[name].training)
        for count in threads
    ]


def measure(
    tasks: Sequence[Task], peers: Sequence[str], seconds: float = 1.0, memory: bool = False
) -> Iterator[NetRow]:
    """A row for each task. `peers` without those that cannot do a task (training in an inference library)."""
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks:
            able = [name for name in peers if name in installed(task.kind)]
            yield measure_task(task, ["fastnn", *able], seconds, Path(folder), memory)


def lines(row: NetRow) -> list[str]:
    """A row as text, a line for each contender."""
    task = row.task
    result = []
    for name, timing in row.times.items():
        ratio = timing.median / row.times["fastnn"].median
        memory = f" {row.peak_bytes[name] / 1e6:9.1f} MB" if name in row.peak_bytes else ""
        result.append(
            f"{task.net:12s} {task.kind:10s} {task.batch:5d} {task.threads:7d}  {name:20s} {timing.median * 1e3:9.3f} "
            f"({timing.lower * 1e3:.3f}-{timing.upper * 1e3:.3f}) {task.batch / timing.median:10.0f} {ratio:7.2f}{memory}"
        )
    return result


def header(memory: bool) -> str:
    """The column titles."""
    titles = f"{'net':12s} {'run':10s} {'batch':>5s} {'threads':>7s}  {'library':20s} {'ms (quartiles)':>22s}"
    return f"{titles} {'images/s':>10s} {'ratio':>7s}" + (f" {'peak memory':>12s}" if memory else "")


def summary(rows: Sequence[NetRow]) -> list[str]:
    """The least ratio and the geometric mean of each kind and number of threads."""
    result = []
    for kind, threads in sorted({(row.task.kind, row.task.threads) for row in rows}):
        some = {
            f"{row.task.net} batch {row.task.batch}": row.ratio
            for row in rows
            if (row.task.kind, row.task.threads) == (kind, threads) and row.ratio is not None
        }
        if some:
            worst = min(some, key=lambda name: some[name])
            result.append(
                f"{kind}, {threads} threads: best peer / ours: geometric mean {geometric_mean(some.values()):.2f}, "
                f"least {some[worst]:.2f} ({worst})"
            )
    return result
