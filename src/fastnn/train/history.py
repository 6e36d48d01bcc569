"""What happened in a training."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class History:
    """The figures of each epoch: `history[name][i]` belongs to epoch `epoch[i]` (counted from 0).

    >>> history = History()
    >>> history.append(0, {"loss": 2.5, "accuracy": 0.5})
    >>> history.history["loss"]
    [2.5]
    >>> print(history.to_json())
    {"epoch": [0], "history": {"loss": [2.5], "accuracy": [0.5]}}
    """

    epoch: list[int] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)

    def append(self, epoch: int, logs: dict[str, float]) -> None:
        """Adds the figures of an epoch."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def to_json(self, path: str | Path | None = None) -> str:
        """All figures as JSON (NaN and infinities as Python's json writes them); also written to `path`, if given."""
        text = json.dumps({"epoch": self.epoch, "history": self.history})
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text
