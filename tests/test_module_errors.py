"""Modules: what wrong code, inputs and arguments get."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda x: x if x.sum() else -x, "a condition"),
        (lambda x: [row for row in x], "iteration"),
        (lambda x: float(x.sum()), r"float\(\)"),
        (lambda x: np.exp(x), "numpy.exp needs the numbers of a tensor"),
        (lambda x: np.ones(3) < x, "numpy.less needs"),
        (lambda x: x**2, r"write x \* x"),
        (lambda x: x @ np.ones((3, 4)), r"x @ w is fastnn.nn.functional.linear\(x, w.T\)"),
        (lambda x: np.add(np.ones(3), x, out=np.ones((2, 3))), "numpy.add needs"),
        (lambda x: np.add.reduce(x), "numpy.add needs"),
    ],
)
def test_control_flow_on_values_is_refused(use: Any, message: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            return use(x)

    with pytest.raises(TypeError, match=message):
        Net()(np.zeros((2, 3)))


def test_forward_must_return_tensors() -> None:
    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            return 3

    with pytest.raises(TypeError, match="Net.forward returned int, not a tensor"):
        Net()(np.zeros(2))
    with pytest.raises(NotImplementedError, match="does not define forward"):
        nn.Module()(np.zeros(2))


def test_assignment_before_init_is_refused() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.ReLU()

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\)"):
        Net()


@pytest.mark.parametrize("dtype", [complex, object, "U1", "M8[s]"])
def test_inputs_that_are_no_numbers(dtype: Any) -> None:
    x = np.zeros((2, 4), dtype)
    advice = "pass x.real" if dtype is complex else r"pass x.astype\(np.float32\)"
    message = rf"real numbers .*; got an array of shape \(2, 4\) and dtype {re.escape(str(x.dtype))}; {advice}"
    layer = nn.Linear(4, 3)
    calls: dict[str, Any] = {
        r"Linear\(in_features=4, .*\): ": lambda: layer(x),
        "Sequential: ": lambda: nn.Sequential(layer)(x),
        r"Linear\(.*\): ": lambda: fnn.vjp(layer, x),
        "linear: ": lambda: nn.functional.linear(x, layer.weight),
        r"CrossEntropyLoss\(\): ": lambda: nn.CrossEntropyLoss()(x, [0, 1]),
    }
    for name, call in calls.items():
        with pytest.raises(TypeError, match=f"^{name}.*{message}"):
            call()


def test_what_is_no_array_at_all() -> None:
    layer = nn.Linear(4, 3)
    with pytest.raises(TypeError, match=r"^Linear\(.*\): a NoneType is no array of real numbers"):
        layer(None)
    with pytest.raises(ValueError, match=r"^Linear\(.*\): cannot make an array of a list"):
        layer([[1, 2], [3]])
    for module in (layer, nn.Sequential(layer), nn.Identity()):
        with pytest.raises(TypeError, match="called without an input"):
            module()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Linear(4, 3), (2, 5), r"^Linear\(in_features=4, .*: expected 4 features .* got an input of shape \(2, 5\)"),
        (nn.Linear(12, 3), (2, 3, 2, 2), r"expected 12 features .*; pass x.flatten\(1\)"),
        (nn.Linear(4, 3), (), "expected 4 features"),
        (nn.Linear(4, 3), (2, 5), r"pass an input of shape \(2, 4\), or make the layer for"),
        (nn.Linear(4, 3), (4, 5), "pass x.T, samples first"),
        (nn.Conv2d(3, 4, 3), (3, 8, 8), r"got 3 axes in \(3, 8, 8\); pass x\[None\], a batch of one"),
        (nn.BatchNorm2d(3), (1, 3, 1, 1), r"got an input of shape \(1, 3, 1, 1\); pass a larger batch, or call eval\(\)"),
        (nn.MaxPool2d(5), (1, 3, 4, 4), "larger than the padded input of 4 .*; use a smaller kernel or more padding"),
        (nn.Flatten(3), (2, 4), r"Flatten\(.*: start_dim 3 is out of range for the 2 axes of shape \(2, 4\)"),
        (nn.Conv2d(3, 4, 3), (2, 3, 5), r"^Conv2d\(3, 4, .* shape \(N,C,H,W\), got 3 axes in \(2, 3, 5\)"),
        (nn.Conv2d(3, 4, 3), (2, 5, 8, 8), r"expected 3 channels on axis 1, got 5 in .* \(2, 5, 8, 8\); pass .* \(2, 3, 8, 8\)"),
        (nn.Conv2d(3, 4, 3), (2, 8, 8, 3), r"looks like N,H,W,C; pass x.transpose\(0, 3, 1, 2\)"),
        (nn.Conv2d(3, 4, 5), (2, 3, 4, 4), r"Conv2d\(3, 4, .*\): .*more than the padded image 4 x 4"),
        (nn.Conv1d(3, 4, 3), (2, 3, 4, 4), r"Conv1d\(3, 4, .*\): the input must have the shape \(N,C,L\)"),
        (nn.Conv1d(3, 4, 3), (2, 9, 3), r"looks like N,L,C; pass x.transpose\(0, 2, 1\)"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(np.zeros(shape, np.float32))


def test_an_error_names_the_layer_inside_a_model() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(5)))
    with pytest.raises(ValueError, match=r"^BatchNorm2d\(5, .*expected 5 channels on axis 1, got 4"):
        net(np.zeros((1, 3, 5, 5)))


def test_an_error_in_a_models_own_arithmetic_names_the_model() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return x + self.layer(x)

    class Filter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activation = nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.activation(nn.functional.conv2d(x, np.ones((4, 3, 3, 3))))

    with pytest.raises(ValueError, match=r"^Sum: shapes \(2, 4\) and \(2, 3\) do not broadcast"):
        nn.Sequential(Sum())(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"^Filter: conv2d: expected 3 channels on axis 1, got 5"):
        Filter()(np.zeros((1, 5, 8, 8)))


@pytest.mark.parametrize("count", [np.nan, np.inf, -1e30, -(2.0**63) - 2048, np.uint64(2**64 - 1), 2.0**63])
def test_a_count_that_is_no_integer_changes_nothing(count: Any) -> None:
    layer = nn.BatchNorm1d(2)
    before = layer.state_dict()
    state = {**before, "weight": np.full(2, 5.0), "num_batches_tracked": np.array(count)}
    with pytest.raises(ValueError, match="load_state_dict: nothing was changed: num_batches_tracked: .* no integers"):
        layer.load_state_dict(state)
    assert all((layer.state_dict()[name] == value).all() for name, value in before.items())
    with pytest.raises(ValueError, match="no integers of 64 bits"):
        layer.num_batches_tracked.data = count
    for whole in (3, 3.5, np.uint64(3), np.int32(3), np.float16(3), np.uint8(3)):
        layer.load_state_dict({**before, "num_batches_tracked": np.array(whole)})
        assert layer.num_batches_tracked.data == 3


def test_a_state_that_is_none() -> None:
    layer = nn.Linear(4, 3)
    with pytest.raises(TypeError, match="takes a dict of arrays by name, not a list"):
        layer.load_state_dict([("weight", 1)])
    with pytest.raises(ValueError, match="nothing was changed: weight: "):
        layer.load_state_dict({"weight": [[1], [2, 3]], "bias": np.zeros(3)})


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, stride=0), ValueError, "stride must be at least 1, got 0"),
        (lambda: nn.Conv2d(3, 4, 0), ValueError, "kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv2d(3, 4, 3, dilation=0), ValueError, "dilation must be at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), ValueError, "padding must be at least 0"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "in_channels must be divisible by groups, got"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), ValueError, "out_channels must be divisible by groups"),
        (lambda: nn.Conv2d(3, 4, 3, groups=0), ValueError, "groups must be at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, stride=2, padding="same"), ValueError, 'padding="same" needs stride 1'),
        (lambda: nn.Conv2d(3, 4, 3, padding="other"), ValueError, "padding must be 'same' or 'valid'"),
        (lambda: nn.Conv2d(3, 4, 3, padding=((1, 2), 3)), ValueError, "padding per side must be"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), ValueError, "padding_mode must be 'zeros'"),
        (lambda: nn.Conv2d(0, 4, 3), ValueError, "in_channels must be at least 1"),
        (lambda: nn.Conv1d(3, 4, (3, 3)), TypeError, "kernel_size must be an integer"),
        (lambda: nn.Conv1d(3, 4, 3, stride=2, padding="same"), ValueError, 'padding="same" needs stride 1'),
        (lambda: nn.Linear(2.5, 3), TypeError, "in_features must be an integer"),
        (lambda: nn.Linear(3, 0), ValueError, "out_features must be at least 1"),
        (lambda: nn.Sequential(3), TypeError, "expected a Module, got int"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("construct", "message"),
    [
        (lambda: nn.Conv2d(3, 8, 3, stride=0), "^Conv2d: stride must be at least 1"),
        (lambda: nn.Conv1d(3, 8, 3, groups=2), "^Conv1d: in_channels must be divisible by groups"),
        (lambda: nn.MaxPool2d(2, padding=2), "^MaxPool2d: padding 2 is more than half"),
        (lambda: nn.Dropout(float("nan")), "^Dropout: p is a probability"),
    ],
)
def test_wrong_arguments_name_the_layer(construct: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        construct()


def test_errors_of_a_users_own_constructor_stay_as_they_are() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        Own()
