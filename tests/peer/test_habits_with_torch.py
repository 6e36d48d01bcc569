"""PyTorch's own objects where ours belong: taken where they can be, refused by name where not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastnn as fnn
from fastnn import nn, optim


def test_tensors_are_inputs() -> None:
    model, x = nn.Linear(3, 4), torch.ones(2, 3)
    np.testing.assert_array_equal(model(x), model(x.numpy()))
    np.testing.assert_array_equal(model(x.half()), model(x.numpy()))
    for refused in (x.requires_grad_(), x.detach().bfloat16()):
        with pytest.raises(TypeError, match=r"x\.detach\(\)\.float\(\)\.cpu\(\)"):
            model(refused)
        np.testing.assert_array_equal(model(refused.detach().float().cpu()), model(x.detach().numpy()))


def test_parameters_that_record_gradients_are_no_state() -> None:
    theirs = torch.nn.Linear(3, 4)
    with pytest.raises(TypeError, match="nothing was changed: weight: .*detach"):
        nn.Linear(3, 4).load_state_dict(dict(theirs.named_parameters()))
    nn.Linear(3, 4).load_state_dict(theirs.state_dict())


def test_functions_in_a_forward() -> None:
    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.relu(x)

    with pytest.raises(TypeError, match=r"PyTorch's relu\(\) works on its own tensors; use fastnn.nn.functional"):
        Net()(np.ones((2, 3)))


def test_parts_of_a_trainer() -> None:
    model, loss, sgd = nn.Linear(3, 4), nn.CrossEntropyLoss(), optim.SGD(lr=0.1)
    with pytest.raises(TypeError, match="not torch.nn.modules.linear.Linear"):
        fnn.Trainer(torch.nn.Linear(3, 4), loss, sgd)
    with pytest.raises(TypeError, match="not torch.nn.modules.loss.CrossEntropyLoss"):
        fnn.Trainer(model, torch.nn.CrossEntropyLoss(), sgd)
    with pytest.raises(TypeError, match="not torch.optim.sgd.SGD"):
        fnn.Trainer(model, loss, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    with pytest.raises(TypeError, match="expected a Module, got torch.nn.modules.linear.Linear"):
        nn.Sequential(torch.nn.Linear(3, 4))
