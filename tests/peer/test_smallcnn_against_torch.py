"""A convolutional net with PyTorch's weights: output, every gradient and five training steps against PyTorch in float64.

ReLU and max pooling choose, and a rounding error can turn a choice that was nearly a tie. One such turn moves single
gradients by more than a thousandth, in PyTorch's float32 as in ours, and more often the more numbers there are. So the net is
compared on several small batches of which most must agree, and once more with Tanh and average pooling, where
nothing can turn, and all must agree. Errors are those of an array as a whole, |ours - theirs| / |theirs| in the Euclidean
norm: Adam divides by the gradient's own size, so that a gradient of nearly nothing may step either way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastnn as fnn
from fastnn import nn, optim

SEEDS = range(6)
OPTIMIZERS = {"SGD": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-3}, "Adam": {"lr": 1e-3}, "AdamW": {"lr": 1e-3}}
Arrays = dict[str, np.ndarray]


def net(namespace: Any, smooth: bool) -> Any:
    """Two stages of two convolutions, and two dense layers; for 3 x 32 x 32."""
    activation = namespace.Tanh if smooth else namespace.ReLU
    layers = []
    for inputs, outputs in ((3, 32), (32, 32), (0, 0), (32, 64), (64, 64), (0, 0)):
        if inputs:
            convolution = namespace.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            layers += [convolution, namespace.BatchNorm2d(outputs), activation()]
        else:
            layers += [(namespace.AvgPool2d if smooth else namespace.MaxPool2d)(2), namespace.Dropout(0.0)]
    dense = [namespace.Linear(4096, 256), activation(), namespace.Dropout(0.0), namespace.Linear(256, 10)]
    return namespace.Sequential(*layers, namespace.Flatten(), *dense)


class Problem:
    """A batch, and the same weights in both libraries."""

    def __init__(self, seed: int, smooth: bool) -> None:
        torch.manual_seed(seed)
        self.peer = net(torch.nn, smooth)
        self.weights = {name: value.numpy().copy() for name, value in self.peer.state_dict().items()}
        self.peer.double()
        self.ours = net(nn, smooth)
        self.ours.load_state_dict(self.weights)
        rng = np.random.default_rng(seed)
        self.x = rng.standard_normal((2, 3, 32, 32)).astype(np.float32)
        self.labels = rng.integers(0, 10, 2)

    def peer_loss(self) -> torch.Tensor:
        output = self.peer(torch.from_numpy(self.x).double())
        return torch.nn.functional.cross_entropy(output, torch.from_numpy(self.labels))

    def gradients(self) -> tuple[Arrays, Arrays]:
        self.peer_loss().backward()
        _, ours = fnn.value_and_grad(self.ours, nn.CrossEntropyLoss())(self.x, self.labels)
        return ours, {name: parameter.grad.numpy() for name, parameter in self.peer.named_parameters()}

    def five_steps(self, kind: str) -> tuple[Arrays, Arrays]:
        optimizer = getattr(torch.optim, kind)(self.peer.parameters(), **OPTIMIZERS[kind])
        trainer = fnn.Trainer(self.ours, nn.CrossEntropyLoss(), getattr(optim, kind)(**OPTIMIZERS[kind]))
        for _ in range(5):
            optimizer.zero_grad()
            self.peer_loss().backward()
            optimizer.step()
            trainer.step(self.x, self.labels)
        return self.ours.state_dict(), {name: value.numpy() for name, value in self.peer.state_dict().items()}


def deviation(pair: tuple[Arrays, Arrays]) -> float:
    """The largest relative deviation of an array, in the Euclidean norm."""
    ours, theirs = pair
    assert ours.keys() == theirs.keys()
    return max(float(np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(theirs[name])) for name in theirs)


def assert_agreement(deviations: list[float], smooth: bool) -> None:
    assert np.median(deviations) < 1e-4, deviations
    assert max(deviations) < (1e-3 if smooth else 0.2), deviations


@pytest.fixture(params=["auto", "direct", "winograd"])
def algorithm(request: pytest.FixtureRequest) -> Any:
    with fnn.conv_algorithm(request.param):
        yield request.param


def test_output_with_the_weights_of_the_peer(algorithm: str) -> None:
    for seed in SEEDS:
        problem = Problem(seed, smooth=False)
        expected = problem.peer.eval()(torch.from_numpy(problem.x).double()).detach().numpy()
        assert np.abs(problem.ours.eval()(problem.x) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("smooth", [False, True])
def test_every_gradient(algorithm: str, smooth: bool) -> None:
    assert_agreement([deviation(Problem(seed, smooth).gradients()) for seed in SEEDS], smooth)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("smooth", [False, True])
def test_five_steps(algorithm: str, smooth: bool, kind: str) -> None:
    assert_agreement([deviation(Problem(seed, smooth).five_steps(kind)) for seed in SEEDS], smooth)
