"""`fastnn info`: what fastnn runs on, and why so."""

from __future__ import annotations

import argparse
import json

from ..config import facts, show_config

HELP = "show CPU, instruction sets, threads and why that many, libraries"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fastnn info`."""
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints the facts; returns the exit status."""
    if arguments.json:
        print(json.dumps(facts()))
    else:
        show_config()
    return 0
