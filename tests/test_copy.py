"""Copies of models are independent of the original, compiled plans included."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn


def make_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def test_deepcopy_has_memory_of_its_own(rng: np.random.Generator) -> None:
    model = make_model().eval()
    x = rng.standard_normal((2, 3, 8, 8))
    y = model(x)
    fnn.vjp(model, x)
    twin = copy.deepcopy(model)
    np.testing.assert_array_equal(twin(x), y)
    twin[0].weight.data = 2 * twin[0].weight.data
    assert not np.array_equal(twin(x), y)
    np.testing.assert_array_equal(model(x), y)


def test_deepcopy_keeps_shared_parameters_shared() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    twin = copy.deepcopy(model)
    assert twin[0].weight is twin[1].weight
    assert twin[0].weight is not model[0].weight


def test_copied_parameter_stays_read_only() -> None:
    twin = copy.deepcopy(nn.Parameter(np.ones((2, 3, 4, 5))))
    assert twin.data.strides == nn.Parameter(np.ones((2, 3, 4, 5))).data.strides
    with pytest.raises(ValueError, match="read-only"):
        twin.data[0] = 0
