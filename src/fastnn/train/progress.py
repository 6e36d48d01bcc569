"""Progress of a training on standard error: a bar with tqdm, a line that is rewritten, or a line an epoch."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, TextIO

CHOICES = ("auto", "tqdm", "text", True, False)
SECONDS_BETWEEN = 0.1
"""Time between two updates of a bar; what lies between costs no more than reading a clock."""

Logs = Mapping[str, float]


def figures(logs: Logs, speed: float) -> str:
    """The figures of a moment in text.

    >>> figures({"loss": 0.12345, "accuracy": 0.98}, 12345.6)
    'loss 0.1235  accuracy 0.9800  12346 images/s'
    """
    parts = [f"{name} {value:.4f}" for name, value in logs.items()]
    return "  ".join([*parts, f"{speed:.0f} images/s"])


class Progress:
    """Shows nothing; the base of those that do."""

    def __init__(self, epochs: int, samples: int) -> None:
        self.epochs = epochs
        self.samples = samples
        self._done = 0
        self._speed = 0.0
        self._shown = self._start = time.perf_counter()

    def begin(self, epoch: int) -> None:
        """An epoch begins."""
        self._done = 0
        self._shown = self._start = time.perf_counter()
        self.title = f"epoch {epoch + 1}/{self.epochs}"

    def update(self, samples: int, logs: Callable[[], Logs]) -> None:
        """A batch is done; `logs` is called only if something is shown."""
        self._done += samples
        now = time.perf_counter()
        self._speed = self._done / max(now - self._start, 1e-9)
        if now - self._shown >= SECONDS_BETWEEN:
            self._shown = now
            self.show(figures(logs(), self._speed))

    def show(self, text: str) -> None:
        """Shows the state within an epoch."""

    def end(self, logs: Logs) -> None:
        """An epoch has ended; `logs` holds validation figures, too."""

    def close(self) -> None:
        """The training has ended, in whatever way."""


class Text(Progress):
    """A line an epoch; on a terminal it is rewritten while the epoch runs."""

    def __init__(self, epochs: int, samples: int, stream: TextIO | None = None) -> None:
        super().__init__(epochs, samples)
        self._stream = stream or sys.stderr
        self._rewrites = self._stream.isatty()

    def show(self, text: str) -> None:
        if self._rewrites:
            self._stream.write(f"\r\x1b[K{self.title}  {self._done * 100 // max(self.samples, 1):3d} %  {text}")
            self._stream.flush()

    def end(self, logs: Logs) -> None:
        start = "\r\x1b[K" if self._rewrites else ""
        self._stream.write(f"{start}{self.title}  {figures(logs, self._speed)}\n")
        self._stream.flush()


class Tqdm(Progress):
    """A bar an epoch."""

    def __init__(self, epochs: int, samples: int) -> None:
        super().__init__(epochs, samples)
        from tqdm import tqdm

        self._make = tqdm
        self._bar: Any = None

    def begin(self, epoch: int) -> None:
        super().begin(epoch)
        form = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}  {postfix}"
        self._bar = self._make(total=self.samples, desc=self.title, bar_format=form, mininterval=0, leave=True)

    def show(self, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(self._done - self._bar.n)

    def end(self, logs: Logs) -> None:
        self.show(figures(logs, self._speed))
        self._bar.refresh()
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def make_progress(choice: Any, epochs: int, samples: int) -> Progress:
    """The progress display that `choice` asks for.

    Parameters
    ----------
    choice : "auto" or True: a tqdm bar on a terminal if tqdm is installed, else text; "tqdm" (ImportError if it is
        not installed); "text"; False: nothing.
    """
    if not any(choice is known or choice == known for known in CHOICES):
        raise ValueError(f"progress is one of {', '.join(map(repr, CHOICES))}, got {choice!r}")
    if choice is False:
        return Progress(epochs, samples)
    if choice == "tqdm" or (choice != "text" and sys.stderr.isatty() and find_spec("tqdm") is not None):
        return Tqdm(epochs, samples)
    return Text(epochs, samples)
