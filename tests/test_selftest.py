"""The self-test passes here, covers every kernel, and notices a kernel that is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import _core
from fastnn.plan import Lowering
from fastnn.selftest import CHECKS, run_checks
from fastnn.selftest.runner import Figure

MEASURING = {"fma_peak"}
"""Kernels that compute nothing a user sees."""


@pytest.mark.parametrize("name", CHECKS)
def test_check_passes_on_every_isa(name: str) -> None:
    outcomes = list(run_checks({name: CHECKS[name]}))
    assert [outcome.isa for outcome in outcomes] == list(fnn.available_isas())
    assert all(outcome.passed for outcome in outcomes), outcomes


def test_checks_run_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: set[str] = set()
    original = Lowering.step

    def step(self: Lowering, kernel: str, work: float, **arguments: Any) -> None:
        ran.add(kernel)
        original(self, kernel, work, **arguments)

    monkeypatch.setattr(Lowering, "step", step)
    fnn.set_num_threads(7)  # plans that no other test has made
    for check in CHECKS.values():
        check(np.random.default_rng(1))
    assert set(_core.KERNELS) - ran - MEASURING == set()


@pytest.mark.parametrize(
    "got", [np.array([1.0, 2.1]), np.array([1.0, np.nan]), np.array([1.0]), np.array([1.0, 2.0 + 1e-6])]
)
def test_figure_notices_wrong_numbers(got: Any) -> None:
    assert Figure("x", got, np.array([1.0, 2.0]), roundings=4).share > 1


def test_failure_is_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from fastnn.cli import main

    wrong = Figure("result", np.array([1.0]), np.array([2.0]), 1)
    monkeypatch.setattr("fastnn.selftest.CHECKS", {"broken": lambda generator: [wrong]})
    assert main(["selftest"]) == 1
    assert "FAIL" in capsys.readouterr().out
