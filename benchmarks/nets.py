"""Compares whole nets with every library installed: all eight nets, inference and training step, on one thread and on all.

    python benchmarks/nets.py --json nets.json --plot nets.png

Needs `pip install '.[bench]'`. All libraries run in one process, in turn; peak memory is measured in a process for each.
Nothing else should run meanwhile. With all peers it takes the better part of an hour, most of it torch.compile's.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

import fastnn as fnn
from fastnn.benchmark import nets, report
from fastnn.benchmark.busy_core import busy_core
from fastnn.benchmark.machine import measure_machine
from fastnn.benchmark.net_calls import INFERENCE, TRAINING, installed
from fastnn.models import NETS


def main() -> int:
    """Measures, prints and writes; the exit status is 1 if a ratio lies below --fail-below."""
    parser = argparse.ArgumentParser(description="Compare whole nets with other libraries.")
    parser.add_argument("nets", nargs="*", default=list(NETS), help="names of fastnn.models (default: all)")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, fnn.get_num_threads()}))
    parser.add_argument("--peers", nargs="*", default=None, help="default: all that are installed")
    parser.add_argument("--without", nargs="*", default=[], metavar="PEER", help="leave these out")
    parser.add_argument("--run", choices=[INFERENCE, TRAINING], nargs="+", default=[INFERENCE, TRAINING])
    parser.add_argument("--batch", type=int, nargs="+", help="default: the batch sizes of fastnn.models.NETS")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each figure")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--busy-core", action="store_true", help="while somebody else takes half of one core")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--fail-below", type=float, default=0.0, metavar="RATIO")
    arguments = parser.parse_args()
    peers = [name for name in arguments.peers or installed() if name not in arguments.without]
    machine = measure_machine()
    report.show_machine(machine)
    tasks = nets.tasks_of(arguments.nets, arguments.run, arguments.batch, arguments.threads)
    with busy_core() if arguments.busy_core else nullcontext():
        rows = report.compare_nets(
            tasks, peers, arguments.seconds, not arguments.no_memory, machine, arguments.json, arguments.plot
        )
    return int(report.any_below(rows, arguments.fail_below))


if __name__ == "__main__":
    sys.exit(main())
