"""Mistakes that come with habits from PyTorch: the error says what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, optim


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU())


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (lambda: small().to("cuda"), "Sequential has no attribute 'to': everything runs on the CPU"),
        (lambda: nn.ReLU().half(), "everything is float32"),
        (lambda: small().zero_grad(), "gradients are results: fastnn.value_and_grad"),
        (lambda: small()[0].weight.grad, "Parameter has no attribute 'grad': gradients are results"),
        (lambda: small()[0].weight.zero_(), "assign its values, p.data = values"),
        (lambda: optim.SGD(lr=0.1).step(), "SGD has no attribute 'step': fastnn.Trainer(model, loss, optimizer).step(x, y)"),
        (lambda: optim.Adam().zero_grad(), "is a whole step"),
        (lambda: optim.lr_scheduler, "a schedule is given as lr"),
        (lambda: fnn.no_grad(), "a call computes no gradients unless they are asked for"),
        (lambda: fnn.from_numpy(np.ones(3)), "inputs and outputs are NumPy arrays"),
        (lambda: fnn.save, "numpy.savez(path, **model.state_dict())"),
    ],
)  # fmt: skip
def test_names_that_are_not_here(wrong: Callable[[], Any], advice: str) -> None:
    with pytest.raises(AttributeError, match=re.escape(advice)):
        wrong()


def test_the_advice_of_saving_holds(tmp_path: Any) -> None:
    model, other = small(), small()
    np.savez(tmp_path / "weights.npz", **model.state_dict())
    with np.load(tmp_path / "weights.npz") as state:
        other.load_state_dict(state)
    np.testing.assert_array_equal(model[0].weight.numpy(), other[0].weight.numpy())


def test_other_names_get_no_advice() -> None:
    with pytest.raises(AttributeError, match="^Sequential has no attribute 'nothing'$"):
        _ = small().nothing
    assert not hasattr(small()[0].weight, "nothing") and not hasattr(optim.SGD(), "nothing")


@pytest.mark.parametrize(
    "use",
    [lambda x: x * x.mean().item(), lambda x: x.detach(), lambda x: x.to("cpu"), lambda x: x.relu(),
     lambda x: x.unsqueeze(1)],
)  # fmt: skip
def test_symbolic_tensors(use: Callable[[Any], Any]) -> None:
    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            return use(x)

    with pytest.raises(AttributeError, match="a symbolic tensor has no attribute '(item|detach|to|relu|unsqueeze)': "):
        Net()(np.ones((2, 3)))


def test_weights_are_not_changed_in_place() -> None:
    weight = small()[0].weight
    before = weight.numpy().copy()
    with pytest.raises(TypeError, match=r"element by element: assign to \.data"):
        weight[0] = 1.0
    for operator in ("+=", "-=", "*=", "/="):
        with pytest.raises(TypeError, match=r"changed in place: assign to \.data"):
            exec(f"weight {operator} 2.0", {"weight": weight})
    np.testing.assert_array_equal(weight.numpy(), before)


def test_images_without_an_axis() -> None:
    with pytest.raises(ValueError, match=r"pass x\[:, None\], a batch of one channel"):
        nn.Conv2d(1, 2, 3)(np.zeros((8, 28, 28)))
    with pytest.raises(ValueError, match=r"pass x\[None\], a batch of one$"):
        nn.Conv2d(1, 2, 3)(np.zeros((1, 28, 28)))
    with pytest.raises(ValueError, match=r"pass x\[None\], a batch of one$"):
        nn.Conv1d(3, 2, 3)(np.zeros((3, 28)))
    with pytest.raises(ValueError, match=r"it looks like N,H,W,C; pass x.transpose\(0, 3, 1, 2\)"):
        nn.Conv2d(3, 2, 3)(np.zeros((2, 8, 8, 3)))


def test_labels() -> None:
    scores = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"pass y.argmax\(axis=1\)"):
        F.cross_entropy(scores, np.eye(3, dtype=int)[[0, 1, 2, 0]])
    with pytest.raises(ValueError, match=r"pass y.reshape\(\(4,\)\)"):
        F.cross_entropy(scores, np.zeros((4, 1), int))
    with pytest.raises(TypeError, match=r"pass y.astype\(np.int64\)"):
        F.cross_entropy(scores, np.zeros(4))


def test_one_sample_in_training_mode() -> None:
    with pytest.raises(ValueError, match=r"pass a larger batch, or call eval\(\) first"):
        nn.BatchNorm1d(3)(np.zeros((1, 3)))


def test_state_of_another_wrapping() -> None:
    model = small()
    state = model.state_dict()
    wrapped = {f"module.{name}": array for name, array in state.items()}
    with pytest.raises(
        ValueError, match=re.escape("all keys begin with 'module.': pass {name.removeprefix('module.')")
    ):
        model.load_state_dict(wrapped)
    model.load_state_dict({name.removeprefix("module."): array for name, array in wrapped.items()})
    with pytest.raises(ValueError, match=r"the arrays are in state\['model'\]: pass that$"):
        model.load_state_dict({"epoch": 3, "model": state})
    with pytest.raises(ValueError, match=r"\(strict=False loads what fits\)$"):
        model.load_state_dict({"0.weight": state["0.weight"]})


def test_classes_in_place_of_objects() -> None:
    with pytest.raises(TypeError, match=re.escape("expected a Module, got the class ReLU; make one: ReLU(...)")):
        nn.Sequential(nn.Linear(3, 4), nn.ReLU)
    with pytest.raises(TypeError, match=r"got list; pass its modules one by one: \*layers"):
        nn.Sequential([nn.ReLU()])
    with pytest.raises(TypeError, match="not the class CrossEntropyLoss; make one"):
        fnn.Trainer(small(), nn.CrossEntropyLoss, optim.SGD())
    with pytest.raises(TypeError, match="not the class SGD; make one"):
        fnn.Trainer(small(), nn.CrossEntropyLoss(), optim.SGD)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not on Linear; pass model.parameters\(\)"):
        optim.SGD(small(), lr=0.1)


class Refusing:
    """An array of another library that gives its memory to nobody, as PyTorch's do while they record gradients."""

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("Can't export tensors that require gradient")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("Can't call numpy() on a tensor that requires grad")


def test_arrays_that_cannot_be_read() -> None:
    with pytest.raises(TypeError, match=r"require gradient; pass a tensor of PyTorch's as x\.detach\(\)\.float\(\)"):
        small()(Refusing())
    model = small()
    with pytest.raises(TypeError, match="nothing was changed: 0.weight: Can't call numpy"):
        model.load_state_dict({**model.state_dict(), "0.weight": Refusing()})
