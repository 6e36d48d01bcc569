"""The nets of fastnn.models are the same nets in PyTorch: keys, shapes, outputs, and a training step."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastnn as fnn
from fastnn import models, nn, optim

SMALL = ("mlp", "lenet", "smallcnn", "resnet20")


@pytest.mark.parametrize("name", models.NETS)
def test_state_has_the_same_keys_in_the_same_order(name: str) -> None:
    theirs = models.NETS[name].make(torch.nn).state_dict()
    ours = models.NETS[name].make(nn).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: tuple(v.shape) for key, v in theirs.items()}


def _pair(name: str):
    torch.manual_seed(0)
    theirs = models.NETS[name].make(torch.nn)
    ours = models.NETS[name].make(nn)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize(
    "name, batch, size", [*((name, 5, None) for name in SMALL), ("resnet18", 2, 96), ("mobilenetv2", 2, 96)]
)
def test_outputs_agree(name: str, batch: int, size: int | None) -> None:
    ours, theirs = _pair(name)
    shape = models.NETS[name].image if size is None else (3, size, size)
    x = np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)
    with torch.inference_mode():
        expected = theirs.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours.eval()(x), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ("lenet", "resnet20"))
def test_losses_of_some_steps_agree(name: str) -> None:
    """Without dropout the same steps are taken. Rounding grows with them, hence a small learning rate."""
    ours, theirs = _pair(name)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((16, *models.NETS[name].image)).astype(np.float32)
    y = rng.integers(0, 10, 16)
    trainer = fnn.Trainer(ours, nn.CrossEntropyLoss(), optim.SGD(lr=1e-3, momentum=0.9))
    optimizer = torch.optim.SGD(theirs.train().parameters(), lr=1e-3, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        assert trainer.step(x, y) == pytest.approx(loss.item(), rel=1e-4)
