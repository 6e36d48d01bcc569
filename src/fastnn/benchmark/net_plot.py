"""The figures of whole nets as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .net_calls import PEERS
from .nets import NetRow

COLUMN_INCHES = 1.1


def save(rows: Sequence[NetRow], path: Path) -> None:
    """Draws for each kind of run how many times as fast as each library fastnn is, a group of bars for each net.

    Needs matplotlib; the format is the one of the path's suffix (.png, .svg, .pdf).
    """
    from matplotlib.figure import Figure

    kinds = sorted({(row.task.kind, row.task.threads) for row in rows})
    widest = max(sum((row.task.kind, row.task.threads) == kind for row in rows) for kind in kinds)
    figure: Any = Figure(figsize=(max(8.0, 3 + COLUMN_INCHES * widest), 3.2 * len(kinds)), layout="constrained")
    for axes, kind in zip(figure.subplots(len(kinds), squeeze=False)[:, 0], kinds, strict=True):
        _draw(axes, [row for row in rows if (row.task.kind, row.task.threads) == kind])
        axes.set_title(
            f"{kind[0]}, {kind[1]} thread{'s' if kind[1] > 1 else ''}: time of each library / time of fastnn"
        )
    figure.savefig(path)


def _draw(axes: Any, rows: Sequence[NetRow]) -> None:
    peers = [name for name in PEERS if any(name in row.times for row in rows)]
    width = 0.8 / max(len(peers), 1)
    for i, peer in enumerate(peers):
        present = [(at, row) for at, row in enumerate(rows) if peer in row.times]
        places = [at + (i - (len(peers) - 1) / 2) * width for at, _ in present]
        ratios = [row.times[peer].median / row.times["fastnn"].median for _, row in present]
        axes.bar(places, ratios, width, label=peer, color=f"C{list(PEERS).index(peer)}")
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(rows)), [f"{row.task.net}\n{row.task.batch}" for row in rows])
    axes.set_ylabel("above 1: fastnn is faster")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))
