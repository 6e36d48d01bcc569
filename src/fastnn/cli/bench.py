"""`fastnn bench`: this machine's peaks, then each layer's time, rate, fraction of the peak and thread scaling; or, with
`--net`, whole nets in inference and training."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from ..benchmark.machine import measure_machine
from ..settings import get_num_threads, set_num_threads
from .options import count, missing_folder

HELP = "measure this machine's peaks and the kernels against them, or whole nets"


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number above 0")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fastnn bench`."""
    parser.add_argument("--threads", type=count, help="threads of the main column (default: as in `fastnn info`)")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only layers whose name contains TEXT")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME",
        help="measure a peer alternately in the same run: torch; with --net also torch.compile, onnxruntime, openvino, "
        "or all that are installed: all (may be given several times)",
    )  # fmt: skip
    parser.add_argument("--seconds", type=_seconds, default=0.3, help="time for each figure (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    nets = parser.add_argument_group("whole nets")
    nets.add_argument("--net", action="append", default=[], metavar="NAME", help="a net of fastnn.models, or all")
    nets.add_argument(
        "--run", dest="kind", choices=["inference", "training"], help="only this kind of run (default: both)"
    )
    nets.add_argument("--batch", type=count, action="append", help="batch size (default: the net's usual ones)")
    nets.add_argument("--memory", action="store_true", help="measure peak memory, each library in a process of its own")
    nets.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios (needs matplotlib)")


def _misplaced(arguments: argparse.Namespace) -> str:
    """What is wrong with options that have no meaning together; "" if nothing is."""
    if arguments.net:
        return "--filter chooses layers; leave it out with --net" if arguments.filter else ""
    given = {
        "--run": arguments.kind,
        "--batch": arguments.batch,
        "--memory": arguments.memory,
        "--plot": arguments.plot,
    }
    return next((f"{option} needs --net" for option, value in given.items() if value), "")


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; returns the exit status."""
    if _misplaced(arguments):
        print(f"fastnn bench: {_misplaced(arguments)}")
        return 2
    for option, path in (("--json", arguments.json), ("--plot", arguments.plot)):
        if missing_folder(path):
            print(f"fastnn bench: {option} {path}: {missing_folder(path)}")
            return 2
    if arguments.threads:
        set_num_threads(arguments.threads)
    return run_nets(arguments) if arguments.net else run_layers(arguments)


def run_layers(arguments: argparse.Namespace) -> int:
    """The table of layers."""
    from ..benchmark import kernels, peers, report
    from ..benchmark.cases import QUICK

    peer = arguments.peer[0] if arguments.peer else None
    if set(arguments.peer) - {"torch"}:
        print("fastnn bench: the layers' only peer is torch; other peers need --net")
        return 2
    if peer and find_spec(peer) is None:
        print(f"fastnn bench: --peer {peer} needs {peer} to be installed")
        return 2
    cases = [case for case in QUICK if arguments.filter in case.name]
    if not cases:
        print(f"fastnn bench: no layer's name contains {arguments.filter!r}")
        return 2
    machine = measure_machine()
    report.show_machine(machine)
    if peer:
        peers.set_threads(machine.threads)
    measured = kernels.measure(cases, machine, peer, arguments.seconds)
    rows = report.show_table(kernels.header(peer), measured, kernels.lines)
    report.save_json(rows, machine, arguments.json)
    return 0


def _chosen_peers(wanted: list[str]) -> list[str]:
    """The contenders of --peer; ValueError tells what is not there."""
    from ..benchmark.net_calls import PEERS, installed

    if "all" in wanted:
        return installed()
    chosen = []
    for name in wanted:
        if name not in PEERS:
            raise ValueError(f"--peer {name}: there are {', '.join(PEERS)} and all")
        if name not in installed():
            package = PEERS[name]
            also = " and onnx and torch for the model's file" if package != "torch" else ""
            compiler = " and a C++ compiler" if name == "torch.compile" else ""
            raise ValueError(f"--peer {name} needs {package}{also}{compiler} to be installed")
        chosen += [name, "torch channels_last"] if name == "torch" else [name]
    return chosen


def run_nets(arguments: argparse.Namespace) -> int:
    """The table of whole nets."""
    from ..benchmark import nets, report
    from ..benchmark.net_calls import INFERENCE, TRAINING
    from ..models import NETS

    names = list(NETS) if "all" in arguments.net else arguments.net
    unknown = [name for name in names if name not in NETS]
    if unknown:
        print(f"fastnn bench: there is no net {unknown[0]!r}; there are {', '.join(NETS)} and all")
        return 2
    try:
        peers = _chosen_peers(arguments.peer)
    except ValueError as error:
        print(f"fastnn bench: {error}")
        return 2
    if arguments.plot and find_spec("matplotlib") is None:
        print("fastnn bench: --plot needs matplotlib to be installed")
        return 2
    machine, threads = measure_machine(), get_num_threads()
    report.show_machine(machine)
    kinds = [arguments.kind] if arguments.kind else [INFERENCE, TRAINING]
    tasks = nets.tasks_of(names, kinds, arguments.batch, [threads])
    report.compare_nets(tasks, peers, arguments.seconds, arguments.memory, machine, arguments.json, arguments.plot)
    return 0
