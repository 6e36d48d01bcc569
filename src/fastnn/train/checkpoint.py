"""Weights written to a file while a model trains."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from .callbacks import Callback, Logs, Monitor


class ModelCheckpoint(Callback):
    """Writes the model's weights after each epoch, or after each that is the best so far.

    Parameters
    ----------
    path : an .npz file of the arrays of `model.state_dict()` under their names (the suffix is added where it is missing);
        "{epoch}" in it becomes the number of the epoch, and figures are formatted in, e.g. "model-{val_loss:.3f}".
    monitor, min_delta, mode : as for EarlyStopping; with save_best_only False they are not used.
    save_best_only : write only when the figure got better; otherwise every epoch.

    A file is written whole or not at all: into a file beside it, which then takes its name. `np.load(path)` reads
    it, and `model.load_state_dict` takes what it gives. `saved` is the path last written, None: none so far.
    Raises ValueError for a path without a name or with braces that do not fit; at the start of a training
    FileNotFoundError if there is no such folder, and IsADirectoryError if the path is a folder itself.

    >>> import fastnn as fnn, numpy as np, pathlib, tempfile
    >>> from fastnn import nn, optim
    >>> model = nn.Linear(2, 3)
    >>> trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = fnn.train.ModelCheckpoint(pathlib.Path(folder, "best"), monitor="loss")
    ...     _ = trainer.fit(np.eye(2), [0, 1], epochs=3, callbacks=[checkpoint], progress=False)
    ...     model.load_state_dict(np.load(checkpoint.saved)), checkpoint.saved.name
    (IncompatibleKeys(missing_keys=[], unexpected_keys=[]), 'best.npz')
    """

    def __init__(
        self, path: str | Path, monitor: str = "val_loss", save_best_only: bool = True, mode: str = "auto",
        min_delta: float = 0.0,
    ) -> None:  # fmt: skip
        self.path = Path(path)
        self._fields = _fields(self.path.name)
        self.save_best_only = bool(save_best_only)
        self._monitor = Monitor(monitor, min_delta, mode)
        self.saved: Path | None = None

    @property
    def best(self) -> float:
        """The best value of the monitored figure."""
        return self._monitor.best

    def on_train_begin(self, logs: Logs) -> None:
        self._monitor.reset()
        self.saved = None
        if not self.path.absolute().parent.is_dir():
            raise FileNotFoundError(f"ModelCheckpoint: there is no folder {self.path.absolute().parent}")
        if not self._fields and self._named({}).is_dir():
            raise IsADirectoryError(f"ModelCheckpoint: {self._named({})} is a folder")

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.save_best_only and not self._monitor.improved(logs):
            return
        figures = {"epoch": epoch, **logs}
        if not self._fields <= figures.keys():
            missing = ", ".join(sorted(self._fields - figures.keys()))
            raise ValueError(f"{self.path.name!r} names {missing}; there are {', '.join(figures)}")
        path = self._named(figures)
        save_arrays(path, dict(self.trainer.model.state_dict()))
        self.saved = path

    def _named(self, figures: Mapping[str, Any]) -> Path:
        name = self.path.name.format(**figures)
        return self.path.with_name(name if name.endswith(".npz") else f"{name}.npz")


def _fields(name: str) -> frozenset[str]:
    """The figures whose values belong into a file's name."""
    if not name:
        raise ValueError("ModelCheckpoint: path names no file")
    try:
        fields = frozenset(field for _, field, _, _ in Formatter().parse(name) if field is not None)
    except ValueError as error:
        raise ValueError(f"ModelCheckpoint: {name!r}: {error}") from error
    if not all(field.isidentifier() for field in fields):
        raise ValueError(f"ModelCheckpoint: braces in {name!r} must hold the name of a figure or epoch")
    return fields


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays to an .npz file, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            with zipfile.ZipFile(file, "w") as archive:  # np.savez has names that no array can have
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
