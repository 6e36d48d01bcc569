"""Modules: parameters and their changes, state, modes, tracing, repr."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from layer_check import normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn


class Block(nn.Module):
    """A residual block with everything a module can hold."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(conv=nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm=nn.BatchNorm2d(channels))
        )
        self.scale = nn.Parameter(np.ones((channels, 1, 1)))
        self.offset = nn.Buffer(np.full((), 0.5))
        self.activation = nn.ReLU()

    def forward(self, x: Any) -> Any:
        return self.activation(self.body(x) * self.scale + x + self.offset)


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), Block(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


NAMES = [
    "0.weight", "0.bias", "1.scale", "1.offset", "1.body.conv.weight", "1.body.norm.weight", "1.body.norm.bias",
    "1.body.norm.running_mean", "1.body.norm.running_var", "1.body.norm.num_batches_tracked", "4.weight", "4.bias",
]  # fmt: skip


def test_names_and_shapes() -> None:
    net = model()
    state = net.state_dict()
    assert list(state) == NAMES
    buffers = [name for name, _ in net.named_buffers()]
    assert buffers == [n for n in NAMES if "running" in n or "num_batches" in n or n.endswith("offset")]
    assert [name for name, _ in net.named_parameters()] == [n for n in NAMES if n not in buffers]
    assert state["1.body.conv.weight"].shape == (4, 4, 3, 3)
    assert state["1.body.conv.weight"].flags.c_contiguous
    assert state["1.body.norm.num_batches_tracked"].dtype == np.int64
    assert [name for name, _ in net.named_modules()] == [
        "", "0", "1", "1.body", "1.body.conv", "1.body.norm", "1.activation", "2", "3", "4",
    ]  # fmt: skip
    assert net.get_submodule("1.body.norm") is net[1].body[1]


def test_state_goes_from_one_model_to_another(isa: str, rng: np.random.Generator) -> None:
    x = normal(rng, (3, 2, 7, 8))
    first, second = model(), model()
    first(x)  # moves the running statistics
    result = second.load_state_dict(first.state_dict())
    assert result == ([], [])
    np.testing.assert_array_equal(second.eval()(x), first.eval()(x))


def test_state_is_a_copy(rng: np.random.Generator) -> None:
    layer = nn.Linear(3, 2)
    state = layer.state_dict()
    state["weight"][:] = 7
    assert not (layer.weight.data == 7).any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("0.bias"), ValueError, r"missing keys \['0.bias'\]"),
        (lambda s: s.update(extra=np.zeros(3)), ValueError, r"unexpected keys \['extra'\]"),
        (lambda s: s.update({"4.weight": np.zeros((4, 3))}), ValueError, r"4.weight: \(4, 3\) instead of \(3, 4\)"),
        (
            lambda s: s.update({"4.bias": np.zeros(3, complex)}),
            TypeError,
            "nothing was changed: 4.bias: .* dtype complex128",
        ),
        (
            lambda s: s.update({"4.bias": np.array(["a", "b", "c"])}),
            TypeError,
            "nothing was changed: 4.bias: .* dtype <U1",
        ),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change: Any, error: type[Exception], message: str) -> None:
    net, other = model(), model()
    before, state = net.state_dict(), other.state_dict()
    change(state)
    with pytest.raises(error, match=message):
        net.load_state_dict(state)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_not_strict_loads_what_fits() -> None:
    net, state = model(), model().state_dict()
    del state["0.bias"]
    state["extra"] = np.zeros(1)
    result = net.load_state_dict(state, strict=False)
    assert result.missing_keys == ["0.bias"]
    assert result.unexpected_keys == ["extra"]
    np.testing.assert_array_equal(net[0].weight.data, state["0.weight"])
    with pytest.raises(ValueError, match="shapes differ"):
        net.load_state_dict({"4.bias": np.zeros(4)}, strict=False)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4", np.int32])
def test_states_of_other_dtypes(dtype: Any) -> None:
    layer = nn.Linear(3, 2)
    values = np.arange(6).reshape(2, 3).astype(dtype)
    layer.load_state_dict({"weight": values, "bias": np.zeros(2, dtype)})
    np.testing.assert_array_equal(layer.weight.data, values.astype(np.float32))


@pytest.mark.parametrize("training", [True, False])
def test_every_change_of_a_weight_is_seen(isa: str, rng: np.random.Generator, training: bool) -> None:
    net = nn.Sequential(nn.Conv2d(2, 17, 3, bias=False), nn.BatchNorm2d(17), nn.ReLU()).train(training)
    x = normal(rng, (2, 2, 5, 6))
    y = net(x)
    weight = net[0].weight.data.copy()
    net[0].weight.data = np.zeros_like(weight)
    assert not np.array_equal(net(x), y)
    net[0].weight.copy_(weight)
    if training:
        np.testing.assert_array_equal(net(x), y)
        return
    np.testing.assert_array_equal(net(x), y)
    net[1].running_mean.data = np.ones(17)
    net[1].load_state_dict({**net[1].state_dict(), "bias": np.full(17, 3.0)})
    direct = F.relu(net[1](F.conv2d(x, weight)))
    np.testing.assert_allclose(net(x), direct, rtol=1e-4, atol=1e-5)


def test_parameters_are_read_only() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="read-only"):
        layer.weight.data[0, 0] = 1.0
    with pytest.raises(ValueError, match=r"cannot assign an array of shape \(3, 2\) to a variable of shape \(2, 3\)"):
        layer.weight.data = np.zeros((3, 2))
    with pytest.raises(TypeError, match="cannot assign ndarray as 'weight': it is a registered Parameter"):
        layer.weight = np.zeros((2, 3))
    with pytest.raises(TypeError, match="dtype complex128"):
        layer.weight.data = np.zeros((2, 3), complex)


def test_a_layer_can_be_replaced(rng: np.random.Generator) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    x = normal(rng, (4, 3))
    assert net(x).shape == (4, 2)
    net[0] = nn.Linear(3, 5)
    assert net(x).shape == (4, 5)
    del net[1]
    assert len(net) == 1
    net.append(nn.Flatten(0))
    assert net(x).shape == (20,)
    assert isinstance(net[:1], nn.Sequential)
    assert net[-1] is net[1]


def test_modes_reach_every_layer() -> None:
    net = model()
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())


def test_shared_layers_count_once(rng: np.random.Generator) -> None:
    layer = nn.Linear(3, 3)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert list(net.children()) == [layer, net[1]]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]  # as in PyTorch
    net.load_state_dict(net.state_dict())
    x = normal(rng, (2, 3))
    np.testing.assert_array_equal(net(x), layer(F.relu(layer(x))))


def test_parameters_that_are_not_trained_have_no_gradient(rng: np.random.Generator) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    _, gradients = fnn.value_and_grad(net, nn.CrossEntropyLoss())(normal(rng, (5, 3)), np.zeros(5, np.int64))
    assert sorted(gradients) == ["1.bias", "1.weight"]


def test_module_list_and_dict(rng: np.random.Generator) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 2)])
            self.heads = nn.ModuleDict({"a": nn.ReLU()})

        def forward(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x)
            return self.heads["a"](x)

    net = Net()
    assert list(net.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    assert net(normal(rng, (4, 3))).shape == (4, 2)


def test_several_inputs_and_outputs(isa: str, rng: np.random.Generator) -> None:
    class Net(nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return a + b, a * b, a

    a, b = normal(rng, (2, 3, 4, 5)), normal(rng, (2, 3, 4, 5))
    total, product, first = Net()(a, b)
    np.testing.assert_array_equal(total, a + b)
    np.testing.assert_array_equal(product, a * b)
    np.testing.assert_array_equal(first, a)
    assert not np.shares_memory(first, a)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda x: x if x.sum() else -x, "a condition"),
        (lambda x: [row for row in x], "iteration"),
        (lambda x: float(x.sum()), r"float\(\)"),
        (lambda x: np.exp(x), "a NumPy function|ufunc"),
    ],
)
def test_control_flow_on_values_is_refused(use: Any, message: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            return use(x)

    with pytest.raises(TypeError, match=message):
        Net()(np.zeros((2, 3)))


def test_a_tuple_of_one_for_some_shapes() -> None:
    class Mixed(nn.Module):
        def forward(self, x: Any) -> Any:
            return (x + 1,) if len(x.shape) == 1 or self.training else x + 1

    model = Mixed().eval()
    for _ in range(3):
        assert isinstance(model(np.ones(3)), tuple)
        assert isinstance(model(np.ones((2, 3))), np.ndarray)
    assert isinstance(model.train()(np.ones((2, 3))), tuple)
    assert isinstance(model.eval()(np.ones((2, 3))), np.ndarray)


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


@pytest.mark.parametrize("count", [np.nan, np.inf, -1e30, np.uint64(2**64 - 1), 2.0**63])
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
        (lambda: nn.Sequential(3), TypeError, "int is not a Module"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_repr_is_pytorchs() -> None:
    assert repr(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Sequential(nn.Linear(4, 2)))) == (
        "Sequential(\n"
        "  (0): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)\n"
        "  (1): Sequential(\n"
        "    (0): Linear(in_features=4, out_features=2, bias=True)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Conv2d(4, 8, (3, 1), 2, "valid", 2, 4)) == (
        "Conv2d(4, 8, kernel_size=(3, 1), stride=(2, 2), padding=valid, dilation=(2, 2), groups=4)"
    )
    assert repr(nn.Conv1d(2, 4, 3)) == "Conv1d(2, 4, kernel_size=(3,), stride=(1,))"


def test_empty_batches(isa: str) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)
    )
    for mode in (True, False):
        assert net.train(mode)(np.zeros((0, 3, 8, 8), np.float32)).shape == (0, 2)


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
