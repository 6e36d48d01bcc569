"""`fastnn selftest`: every kernel of every instruction set of this CPU against the NumPy reference."""

from __future__ import annotations

import argparse

HELP = "check every kernel of every instruction set of this CPU against the NumPy reference"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fastnn selftest`."""
    parser.add_argument("--verbose", action="store_true", help="a line for each check, not only for those that fail")


def run(arguments: argparse.Namespace) -> int:
    """Prints what failed, and a summary for each instruction set; the exit status is 1 if anything did."""
    from ..selftest import CHECKS, run_checks

    checked: dict[str, int] = {}
    failures = 0
    for outcome in run_checks(CHECKS):
        checked[outcome.isa] = checked.get(outcome.isa, 0) + 1
        failures += not outcome.passed
        if arguments.verbose or not outcome.passed:
            bits = f"same bits on {'/'.join(map(str, outcome.threads))} threads"
            print(
                f"{'ok  ' if outcome.passed else 'FAIL'} {outcome.isa:7s} {outcome.check:26s} {outcome.worst} at "
                f"{outcome.share:.0%} of the allowed error, {bits if outcome.same_bits else 'NOT the ' + bits}"
            )
    for isa, count in checked.items():
        print(f"{isa}: {count} checks")
    print("all passed" if not failures else f"{failures} failed")
    return int(failures > 0)
