"""The table of `fastnn bench`: each layer forward and backward, against the machine's peak and a peer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..settings import get_num_threads, set_num_threads
from . import ours, peers
from .cases import Case
from .machine import Machine
from .timing import Timing, alternate


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
    def ratio(self) -> float | None:
        """Peer's time over ours: above 1 we are faster."""
        return self.peer.median / self.time.median if self.peer else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def measure(cases: Sequence[Case], machine: Machine, peer: str | None, seconds: float) -> Iterator[Row]:
    """Rows of every case, forward then backward; all threads, one thread and the peer take turns."""
    threads = get_num_threads()
    for case in cases:
        by_threads = {}
        for count in {threads, 1}:
            set_num_threads(count)
            by_threads[count] = ours.calls(case)
        set_num_threads(threads)
        rivals = peers.torch_calls(case) if peer == "torch" else None
        for i, direction in enumerate(("forward", "backward")):
            yield _row(case, direction, i, by_threads, rivals, machine, seconds)


def _row(
    case: Case,
    direction: str,
    i: int,
    by_threads: dict[int, tuple[ours.Call, ours.Call]],
    rivals: tuple[ours.Call, ours.Call] | None,
    machine: Machine,
    seconds: float,
) -> Row:
    threads = max(by_threads)

    def with_threads(count: int) -> ours.Call:
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
    passes = 1 if direction == "forward" else 1 + case.input_gradient
    compute = case.flops > 0
    work = case.flops * passes if compute else (case.forward_bytes if direction == "forward" else case.backward_bytes)
    rate = work / time.median * 1e-9
    peak = machine.gflops if compute else machine.copy_gbs
    unit = "GFLOP/s" if compute else "GB/s"
    scaling = timings["alone"].median / time.median
    return Row(case.name, direction, time, rate, unit, rate / peak, scaling, timings.get("peer"))


def header(peer: str | None) -> str:
    """The column titles."""
    line = f"{'layer':38s} {'pass':8s} {'ms':>9s} {'rate':>16s} {'of peak':>8s} {'scaling':>8s}"
    return line + (f" {peer + ' ms':>10s} {'ratio':>6s}" if peer else "")


def line(row: Row) -> str:
    """One row as text."""
    text = (
        f"{row.name:38s} {row.direction:8s} {row.time.median * 1e3:9.3f} {row.rate:8.1f} {row.unit:7s} "
        f"{row.fraction:7.0%} {row.scaling:8.2f}"
    )
    return text + (f" {row.peer.median * 1e3:10.3f} {row.ratio:6.2f}" if row.peer else "")
