"""Compares layers with PyTorch: both in one process, in turn, PyTorch in the better of its memory formats.

    python benchmarks/compare.py benchmarks/shapes/peers.txt --fail-below 1 --json figures.json
    python benchmarks/compare.py benchmarks/shapes/*.txt --filter transpose
    python benchmarks/compare.py benchmarks/shapes/peers.txt --filter "3x3" --algorithm direct

Needs `pip install '.[bench]'`. Prints time with its quartiles, rate, fraction of this machine's measured peak, thread scaling
and the ratio PyTorch time / our time (of the medians), forward and backward, and the geometric means. A layer that
several lists name is measured once. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import geometric_mean

import fastnn as fnn
from fastnn.benchmark import kernels, peers, report
from fastnn.benchmark.cases import QUICK, read_cases
from fastnn.benchmark.machine import measure_machine


def main() -> int:
    """Measures, prints and writes; the exit status is 1 if a ratio lies below --fail-below."""
    parser = argparse.ArgumentParser(description="Compare layers with PyTorch.")
    parser.add_argument("shapes", nargs="*", type=Path, help="files of shapes (default: the layers of `fastnn bench`)")
    parser.add_argument("--threads", type=int, default=fnn.get_num_threads())
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each figure")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only layers whose name contains TEXT")
    parser.add_argument(
        "--algorithm", default="auto", metavar="NAME", help="of our convolutions (fastnn.conv_algorithm)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--fail-below", type=float, default=0.0, metavar="RATIO")
    arguments = parser.parse_args()
    fnn.set_num_threads(arguments.threads)
    machine = measure_machine()
    peers.set_threads(machine.threads)
    report.show_machine(machine)
    cases = [case for file in arguments.shapes for case in read_cases(file.read_text())] or QUICK
    cases = list({case.name: case for case in cases if arguments.filter in case.name}.values())
    with fnn.conv_algorithm(arguments.algorithm):
        measured = kernels.measure(cases, machine, "torch", arguments.seconds)
        rows = report.show_table(kernels.header("torch"), measured, kernels.lines)
    for direction in ("forward", "backward"):
        ratios = [row.ratio for row in rows if row.direction == direction and row.ratio is not None]
        if ratios:
            print(f"{direction}: geometric mean {geometric_mean(ratios):.2f}, least {min(ratios):.2f}")
    report.save_json(rows, machine, arguments.json)
    return int(report.any_below(rows, arguments.fail_below))


if __name__ == "__main__":
    sys.exit(main())
