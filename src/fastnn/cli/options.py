"""What the subcommands' options have in common: they are checked before anything runs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def count(text: str) -> int:
    """An option that is an integer of at least 1.

    >>> count("3")
    3
    """
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def missing_folder(path: Path | None) -> str:
    """Why no file can be written at the path; "" if one can, or if there is no path.

    >>> missing_folder(Path("/no such folder/figures.json"))
    'there is no such folder'
    """
    if path is None:
        return ""
    if path.is_dir():
        return "this is a folder"
    folder = path.absolute().parent
    if not folder.is_dir():
        return "there is no such folder"
    return "" if os.access(path if path.exists() else folder, os.W_OK) else "it cannot be written"
