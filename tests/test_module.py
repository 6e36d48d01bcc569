"""Modules: parameters and their changes, state, modes, tracing, repr."""

from __future__ import annotations

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


@pytest.mark.parametrize("change", [lambda model: model.__delitem__(0), lambda model: model.__delitem__(slice(0, 1))])
def test_deleting_numbers_anew_and_appending_loses_nothing(change: Any) -> None:
    """As in PyTorch: else the next module would take the name, and the place, of the last one."""
    layers = [nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3)]
    model = nn.Sequential(*layers)
    change(model)
    assert list(model._modules) == ["0", "1"] and list(model) == layers[1:]
    assert list(model.state_dict()) == ["1.weight", "1.bias"]
    model.append(nn.Tanh())
    assert len(model) == 3 and list(model)[:2] == layers[1:] and model(np.ones((1, 2))).shape == (1, 3)


def test_appending_to_a_part_loses_nothing() -> None:
    layers = [nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3)]
    part = nn.Sequential(*layers)[1:]
    part.append(nn.Tanh())
    assert list(part)[:2] == layers[1:] and len(part) == 3


def test_lists_and_dicts_of_modules_change_like_pythons() -> None:
    a, b, c, d = (nn.Linear(1, 1) for _ in range(4))
    layers = nn.ModuleList([a, b])
    layers += [c]
    layers.insert(1, d)
    assert list(layers) == [a, d, b, c] and list(layers._modules) == ["0", "1", "2", "3"]
    layers[-1] = a
    del layers[:2]
    assert list(layers) == [b, a] and list(layers._modules) == ["0", "1"]
    with pytest.raises(TypeError, match="expected a Module, got int"):
        layers.insert(0, 3)  # type: ignore[arg-type]
    assert list(layers) == [b, a]
    assert list(nn.Sequential(a, b).insert(1, c)) == [a, c, b]
    heads = nn.ModuleDict({"a": a})
    heads["b"] = b
    del heads["a"]
    assert heads.items() == [("b", b)] and list(heads.state_dict()) == ["b.weight", "b.bias"]
    with pytest.raises(KeyError):
        del heads["a"]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5), (), (0, 3)], ids=str)
def test_nobody_makes_a_parameter_writeable(shape: tuple[int, ...]) -> None:
    """Else a weight could change behind the back of a plan that has packed it."""
    parameter = nn.Parameter(np.ones(shape))
    for view in (parameter.data, parameter.data.view(), parameter.numpy()[...]):
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
            view.flags.writeable = True
    parameter.data = np.full(shape, 2.0)
    assert np.array_equal(parameter.data, np.full(shape, 2.0)) and parameter.data.shape == shape


@pytest.mark.parametrize("name", ["", "a.b", "training", "forward", "keys"])
def test_names_that_would_hide_something(name: str) -> None:
    """A dot joins names in a state_dict; `training` as a child would end eval()."""
    holder = nn.ModuleDict([("a", nn.ReLU())])
    for add in (holder.add_module, holder.__setitem__):
        with pytest.raises(KeyError, match="ModuleDict: "):
            add(name, nn.Linear(1, 1))
    with pytest.raises(KeyError, match="ModuleDict: "):
        holder.register_parameter(name, nn.Parameter([1.0]))
    with pytest.raises(KeyError, match="ModuleDict: "):
        holder.register_buffer(name, nn.Buffer([1.0]))
    assert list(holder) == ["a"] and not holder.state_dict() and not holder.eval().training
    with pytest.raises(TypeError, match="a name must be a str, not int"):
        holder[1] = nn.ReLU()  # type: ignore[index]
