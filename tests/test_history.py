"""History as JSON, and what a training shows of itself."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.train import History
from fastnn.train.progress import Progress, Text, Tqdm, make_progress


def fit(progress: Any, epochs: int = 2) -> History:
    rng = np.random.default_rng(0)
    trainer = fnn.Trainer(nn.Sequential(nn.Linear(4, 3)), nn.CrossEntropyLoss(), optim.SGD(lr=0.1), ["accuracy"])
    x, y = rng.standard_normal((10, 4)), rng.integers(0, 3, 10)
    return trainer.fit(x, y, epochs, 4, validation_data=(x, y), progress=progress)


def test_history_to_json_and_back(tmp_path: Path) -> None:
    history = fit(False)
    text = history.to_json(tmp_path / "history.json")
    read = json.loads(text)
    assert History(**read) == history
    assert json.loads((tmp_path / "history.json").read_text()) == read


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_text_shows_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    history = fit("text")
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and len(lines) == 2
    for epoch, line in enumerate(lines):
        figures = "  ".join(f"{name} {values[epoch]:.4f}" for name, values in history.history.items())
        assert line.startswith(f"epoch {epoch + 1}/2  {figures}  ") and line.endswith(" images/s")


def test_text_is_rewritten_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    stream = Terminal()
    text = Text(1, 40, stream)
    text.begin(0)
    for _ in range(4):
        now[0] += 0.06
        text.update(10, lambda: {"loss": 0.5})
    text.end({"loss": 0.25})
    parts = stream.getvalue().split("\r\x1b[K")
    assert parts == ["", "epoch 1/1   50 %  loss 0.5000  167 images/s", "epoch 1/1  100 %  loss 0.5000  167 images/s",
                     "epoch 1/1  loss 0.2500  167 images/s\n"]  # fmt: skip


def test_nothing_is_shown_without_progress(capsys: pytest.CaptureFixture[str]) -> None:
    fit(False)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_tqdm_shows_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    history = fit("tqdm")
    shown = capsys.readouterr().err
    assert "epoch 1/2 100% |" in shown and "epoch 2/2 100% |" in shown
    assert f"val_accuracy {history.history['val_accuracy'][1]:.4f}" in shown and "images/s" in shown


def test_which_progress_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    assert type(make_progress(False, 1, 1)) is Progress
    assert type(make_progress("text", 1, 1)) is Text
    assert type(make_progress("tqdm", 1, 1)) is Tqdm
    assert type(make_progress("auto", 1, 1)) is Text  # no terminal here
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert type(make_progress("auto", 1, 1)) is type(make_progress(True, 1, 1)) is Tqdm
    monkeypatch.setattr("fastnn.train.progress.find_spec", lambda name: None)
    assert type(make_progress("auto", 1, 1)) is Text
