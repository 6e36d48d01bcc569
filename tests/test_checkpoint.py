"""ModelCheckpoint: what is written when, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.train import Callback, ModelCheckpoint


def fit(*callbacks: Callback, epochs: int = 3, validation: bool = True) -> fnn.Trainer:
    fnn.manual_seed(1)
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((20, 4)), rng.integers(0, 3, 20)
    trainer = fnn.Trainer(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    data = (x, y) if validation else None
    trainer.fit(x, y, epochs, 5, validation_data=data, callbacks=callbacks, progress=False)
    return trainer


class Script(Callback):
    """Gives the epochs a figure of its own."""

    def __init__(self, *figures: float) -> None:
        self.figures, self.states = figures, []  # type: ignore[var-annotated]

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        logs["figure"] = self.figures[epoch]
        self.states.append(dict(self.trainer.model.state_dict()))


def assert_holds(path: Path, state: dict[str, Any]) -> None:
    loaded = np.load(path, allow_pickle=False)
    assert set(loaded) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(loaded[name], value)
        assert loaded[name].dtype == value.dtype


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    script, checkpoint = Script(3.0, 1.0, 2.0), ModelCheckpoint(tmp_path / "best.npz", "figure")
    fit(script, checkpoint)
    assert checkpoint.saved == tmp_path / "best.npz" and checkpoint.best == 1.0
    assert_holds(checkpoint.saved, script.states[1])
    assert [path.name for path in tmp_path.iterdir()] == ["best.npz"], "nothing is left beside it"


def test_every_epoch_under_its_own_name(tmp_path: Path) -> None:
    script = Script(3.0, 1.0, 2.0)
    fit(script, ModelCheckpoint(tmp_path / "m{epoch}-{figure:.1f}", save_best_only=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m0-3.0.npz", "m1-1.0.npz", "m2-2.0.npz"]
    for path, state in zip(sorted(tmp_path.iterdir()), script.states, strict=True):
        assert_holds(path, state)


def test_larger_is_better_for_accuracy(tmp_path: Path) -> None:
    class Accuracy(Script):
        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            super().on_epoch_end(epoch, logs)
            logs["val_accuracy"] = logs["figure"]

    script = Accuracy(0.5, 0.9, 0.7)
    checkpoint = ModelCheckpoint(tmp_path / "best", "val_accuracy")
    fit(script, checkpoint)
    assert_holds(tmp_path / "best.npz", script.states[1])


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.npz"
    checkpoint = ModelCheckpoint(path, save_best_only=False)
    trainer = fit(checkpoint, epochs=1)
    before = path.read_bytes()

    def full(file: Any, *arguments: Any, **options: Any) -> None:
        file.write(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    trainer.step(np.ones((2, 4)), [0, 1])
    checkpoint.trainer = trainer
    with pytest.raises(OSError, match="no space left"):
        checkpoint.on_epoch_end(1, {"val_loss": 0.0})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.npz"]


def test_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        fit(ModelCheckpoint(tmp_path / "missing" / "best"))
    with pytest.raises(ValueError, match="there is no figure 'val_loss' to monitor; there are loss"):
        fit(ModelCheckpoint(tmp_path / "best"), validation=False)
    with pytest.raises(ValueError, match="mode is"):
        ModelCheckpoint("best", mode="best")
    for path in ("", "a{epoch", "a{}", "a{0}", "a{loss.real}"):
        with pytest.raises(ValueError, match="ModelCheckpoint: "):
            ModelCheckpoint(path)
    with pytest.raises(ValueError, match="'{epoch}-{los}' names los; there are epoch, loss"):
        fit(ModelCheckpoint(tmp_path / "{epoch}-{los}", monitor="loss"), validation=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_refused_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "best.npz").mkdir()
    begun = Script(1.0)
    with pytest.raises(IsADirectoryError, match="best.npz is a folder"):
        fit(ModelCheckpoint(tmp_path / "best", monitor="figure"), begun, epochs=1)
    assert not begun.states


def test_parameters_of_any_name(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    model.file, model.allow_pickle = nn.Parameter(np.ones(3)), nn.Parameter(np.ones((2, 3, 4, 5)))
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    checkpoint = ModelCheckpoint(tmp_path / "model", monitor="loss")
    trainer.fit(np.ones((2, 4)), [0, 1], callbacks=[checkpoint], progress=False)
    assert checkpoint.saved is not None
    assert_holds(checkpoint.saved, dict(model.state_dict()))
