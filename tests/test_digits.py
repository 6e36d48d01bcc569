"""The whole house at work: real digits are learned, with the same bits on any number of threads."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.cli import main
from fastnn.cli.train import make_digits_model
from fastnn.data import load_digits
from fastnn.train import LambdaCallback
from fastnn.variable import Array

pytest.importorskip("sklearn")


def test_digits_are_learned(capsys: pytest.CaptureFixture[str]) -> None:
    """At least 98.5 % of images never seen. The time is measured by `fastnn train digits` itself; here it has room for a
    busy machine."""
    start = time.perf_counter()
    assert main(["train", "digits", "--no-progress"]) == 0
    assert time.perf_counter() - start < 60
    found = re.search(r"^test accuracy: ([01]\.\d{3})$", capsys.readouterr().out, re.MULTILINE)
    assert found and float(found[1]) >= 0.985


def test_losses_of_digits_do_not_depend_on_threads(isa: str, same_bits: object) -> None:
    digits = load_digits()

    def run() -> list[Array]:
        fnn.manual_seed(0)
        losses: list[float] = []
        record = LambdaCallback(on_batch_end=lambda batch, logs: losses.append(logs["loss"]))
        trainer = fnn.Trainer(make_digits_model(), nn.CrossEntropyLoss(), optim.AdamW(lr=5e-3), ["accuracy"])
        trainer.fit(digits.x_train[:330], digits.y_train[:330], 2, 64, progress=False, callbacks=[record])
        return [np.array(losses), *trainer.model.state_dict().values()]

    same_bits(run, (1, 2, 3))  # type: ignore[operator]
