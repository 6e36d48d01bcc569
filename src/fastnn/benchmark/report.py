"""What every command that measures shows and keeps: the machine, a table that grows row by row, files, a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from . import net_plot, nets
from .machine import Machine
from .net_calls import Task


class Row(Protocol):
    """A line of a table."""

    @property
    def title(self) -> str: ...

    @property
    def ratio(self) -> float | None:
        """Peer's time over ours."""

    def to_json(self) -> dict[str, Any]: ...


AnyRow = TypeVar("AnyRow", bound=Row)


def show_machine(machine: Machine) -> None:
    """Prints the limits that the figures are compared with."""
    print(
        f"isa {machine.isa}, {machine.threads} threads: {machine.gflops:.1f} GFLOP/s of float32 FMA, "
        f"{machine.copy_gbs:.1f} GB/s copying (read + write)\n"
    )


def show_table(header: str, rows: Iterable[AnyRow], lines: Callable[[AnyRow], Sequence[str]]) -> list[AnyRow]:
    """Prints each row as soon as it is measured; returns all of them."""
    print(header)
    shown = []
    for row in rows:
        print(*lines(row), sep="\n", flush=True)
        shown.append(row)
    return shown


def save_json(rows: Sequence[Row], machine: Machine, file: Path | None) -> None:
    """Writes all figures to the file, if there is one."""
    if file:
        figures = {"machine": asdict(machine), "rows": [row.to_json() for row in rows]}
        file.write_text(json.dumps(figures, indent=1) + "\n")


def compare_nets(
    tasks: Sequence[Task], peers: Sequence[str], seconds: float, memory: bool, machine: Machine,
    json_file: Path | None, plot_file: Path | None,
) -> list[nets.NetRow]:  # fmt: skip
    """Measures whole nets: table, summary, and the files that are wanted."""
    rows = show_table(nets.header(memory), nets.measure(tasks, peers, seconds, memory), nets.lines)
    print(*nets.summary(rows), sep="\n")
    save_json(rows, machine, json_file)
    if plot_file:
        net_plot.save(rows, plot_file)
    return rows


def any_below(rows: Sequence[Row], least: float) -> bool:
    """Whether a ratio lies below `least`; prints those that do."""
    below = [(row.title, row.ratio) for row in rows if row.ratio is not None and row.ratio < least]
    for title, ratio in below:
        print(f"below {least}: {title}: {ratio:.2f}")
    return bool(below)
