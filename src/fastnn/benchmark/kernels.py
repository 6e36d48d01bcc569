"""The table of `fastnn bench`: each layer forward and backward, against the machine's peak and a peer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..settings import get_num_threads, set_num_threads
from . import optimizers, ours, peers
from .cases import Case, OptimizerCase
from .machine import Machine
from .timing import Call, Timing, alternate


@dataclass(frozen=True)
class Row:
    """One direction of one case."""

    name: str
    direction: str
    time: Timing
    rate: float
    unit: str
    fraction: float
    """Of the machine's measured peak: FMA for GFLOP/s, copying for GB/s."""
    scaling: float
    """Time of one thread over time of all."""
    peer: Timing | None

    @property
    def title(self) -> str:
        return f"{self.name} {self.direction}"

    @property
    def ratio(self) -> float | None:
        """Peer's time over ours: above 1 we are faster."""
        return self.peer.median / self.time.median if self.peer else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def measure(cases: Sequence[Case], machine: Machine, peer: str | None, seconds: float) -> Iterator[Row]:
    """Rows of every case, one a direction; all threads, one thread and the peer take turns."""
    threads = get_num_threads()
    for case in cases:
        by_threads = {}
        for count in {threads, 1}:
            set_num_threads(count)
            by_threads[count] = _ours(case)
        set_num_threads(threads)
        rivals = _rivals(case) if peer == "torch" and case.has_peer else None
        for i, direction in enumerate(case.directions):
            yield _row(case, direction, i, by_threads, rivals, machine, seconds)


def _ours(case: Case) -> tuple[Call, ...]:
    return optimizers.calls(case) if isinstance(case, OptimizerCase) else ours.calls(case)


def _rivals(case: Case) -> tuple[Call, ...]:
    return optimizers.torch_calls(case) if isinstance(case, OptimizerCase) else peers.torch_calls(case)


def _row(
    case: Case,
    direction: str,
    i: int,
    by_threads: dict[int, tuple[Call, ...]],
    rivals: tuple[Call, ...] | None,
    machine: Machine,
    seconds: float,
) -> Row:
    threads = max(by_threads)

    def with_threads(count: int) -> Call:
        def call() -> None:
            set_num_threads(count)
            by_threads[count][i]()

        return call

    calls = {"ours": with_threads(threads), "alone": with_threads(1)}
    if rivals:
        calls["peer"] = rivals[i]
    timings = alternate(calls, seconds)
    set_num_threads(threads)
    time = timings["ours"]
    passes = 1 + case.input_gradient if direction == "backward" else 1
    compute = case.flops > 0
    work = case.flops * passes if compute else (case.backward_bytes if direction == "backward" else case.forward_bytes)
    rate = work / time.median * 1e-9
    peak = machine.gflops if compute else machine.copy_gbs
    unit = "GFLOP/s" if compute else "GB/s"
    scaling = timings["alone"].median / time.median
    return Row(case.name, direction, time, rate, unit, rate / peak, scaling, timings.get("peer"))


def header(peer: str | None) -> str:
    """The column titles."""
    line = f"{'layer':44s} {'pass':8s} {'ms (quartiles)':>27s} {'rate':>16s} {'of peak':>8s} {'scaling':>8s}"
    return line + (f" {peer + ' ms (quartiles)':>27s} {'ratio':>6s}" if peer else "")


def _milliseconds(time: Timing) -> str:
    """The median and the quartiles."""
    return f"{time.median * 1e3:.3f} ({time.lower * 1e3:.3f}-{time.upper * 1e3:.3f})"


def lines(row: Row) -> list[str]:
    """A row as text: one line."""
    text = (
        f"{row.name:44s} {row.direction:8s} {_milliseconds(row.time):>27s} {row.rate:8.1f} {row.unit:7s} "
        f"{row.fraction:8.0%} {row.scaling:8.2f}"
    )
    return [text + (f" {_milliseconds(row.peer):>27s} {row.ratio:6.2f}" if row.peer else "")]
