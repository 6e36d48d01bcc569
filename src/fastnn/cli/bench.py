"""`fastnn bench`: this machine's peaks, then each layer's time, rate, fraction of the peak and thread scaling."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from ..benchmark.machine import measure_machine
from ..settings import set_num_threads

HELP = "measure this machine's peaks and the kernels against them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fastnn bench`."""
    parser.add_argument("--threads", type=int, help="threads of the main column (default: as in `fastnn info`)")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only layers whose name contains TEXT")
    parser.add_argument("--peer", choices=["torch"], help="measure a peer alternately in the same run")
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each figure (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; returns the exit status."""
    from ..benchmark import kernels, peers
    from ..benchmark.cases import QUICK

    if arguments.peer and find_spec(arguments.peer) is None:
        print(f"fastnn bench: --peer {arguments.peer} needs {arguments.peer} to be installed")
        return 2
    if arguments.threads:
        set_num_threads(arguments.threads)
    machine = measure_machine()
    print(
        f"isa {machine.isa}, {machine.threads} threads: {machine.gflops:.1f} GFLOP/s of float32 FMA, "
        f"{machine.copy_gbs:.1f} GB/s copying (read + write)\n"
    )
    if arguments.peer:
        peers.set_threads(machine.threads)
    cases = [case for case in QUICK if arguments.filter in case.name]
    print(kernels.header(arguments.peer))
    rows = []
    for row in kernels.measure(cases, machine, arguments.peer, arguments.seconds):
        print(kernels.line(row), flush=True)
        rows.append(row)
    if arguments.json:
        figures = {"machine": asdict(machine), "rows": [row.to_json() for row in rows]}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0
