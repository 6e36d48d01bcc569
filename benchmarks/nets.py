"""Compares whole nets with every library installed: all eight nets, inference and training step, on one thread and on all.

    python benchmarks/nets.py --json nets.json --plot nets.png

Needs `pip install '.[bench]'`. All libraries run in one process, in turn; peak memory is measured in a process for each.
Nothing else should run meanwhile. With all peers it takes the better part of an hour, most of it torch.compile's.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import fastnn as fnn
from fastnn.benchmark import net_plot, nets
from fastnn.benchmark.machine import measure_machine
from fastnn.benchmark.net_calls import INFERENCE, TRAINING, Task, installed
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
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--fail-below", type=float, default=0.0, metavar="RATIO")
    arguments = parser.parse_args()
    peers = [name for name in arguments.peers or installed() if name not in arguments.without]
    machine = measure_machine()
    print(f"isa {machine.isa}, {machine.threads} threads: {machine.gflops:.1f} GFLOP/s, {machine.copy_gbs:.1f} GB/s")
    tasks = [
        Task(name, kind, batch, threads)
        for name in arguments.nets
        for kind in arguments.run
        for batch in arguments.batch or (NETS[name].inference if kind == INFERENCE else NETS[name].training)
        for threads in arguments.threads
    ]
    print(nets.header(not arguments.no_memory))
    rows = []
    for row in nets.measure(tasks, peers, arguments.seconds, not arguments.no_memory):
        print(*nets.lines(row), sep="\n", flush=True)
        rows.append(row)
    print(*nets.summary(rows), sep="\n")
    if arguments.json:
        figures = {"machine": asdict(machine), "rows": [row.to_json() for row in rows]}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.plot:
        net_plot.save(rows, arguments.plot)
    below = [row for row in rows if row.ratio is not None and row.ratio < arguments.fail_below]
    for row in below:
        print(f"below {arguments.fail_below}: {row.task.net} {row.task.kind} batch {row.task.batch}: {row.ratio:.2f}")
    return int(bool(below))


if __name__ == "__main__":
    sys.exit(main())
