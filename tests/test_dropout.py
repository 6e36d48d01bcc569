"""Dropout: masks of the published stream, their rates and independence, and that inference has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from layer_check import SameBits, normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference
from fastnn.differentiation import differentiate
from fastnn.trace import Compiled

SHAPES = [(1,), (7, 13), (3, 5, 17), (2, 19, 5, 7), (3, 1, 9, 1), (2, 3, 2, 3, 5), (0, 4)]


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0 - 2.0**-20])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dropout_is_the_reference_to_the_bit(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], p: float
) -> None:
    x, dy = normal(rng, shape), normal(rng, shape)
    stream = {"seed": 77, "layer": 5, "step": 1}

    def run() -> tuple[Any, ...]:
        fnn.manual_seed(77)
        y, pullback = fnn.vjp(lambda t: F.dropout(t, p, layer=5), x)
        return y, *pullback(dy)

    y, dx = same_bits(run)
    np.testing.assert_array_equal(y, reference.dropout(x, p, **stream))
    np.testing.assert_array_equal(dx, reference.dropout_backward(dy, p, **stream))


@pytest.mark.parametrize(
    ("function", "expected", "shape"),
    [(F.dropout1d, reference.dropout1d, (3, 17, 5)), (F.dropout2d, reference.dropout2d, (3, 19, 5, 7)),
     (F.dropout2d, reference.dropout2d, (2, 3, 1, 1)), (F.dropout2d, reference.dropout2d, (0, 3, 4, 4))],
)  # fmt: skip
def test_whole_channels(
    isa: str, same_bits: SameBits, rng: np.random.Generator, function: Callable[..., Any],
    expected: Callable[..., Any], shape: tuple[int, ...],
) -> None:  # fmt: skip
    x, dy = normal(rng, shape), normal(rng, shape)
    stream = {"seed": 3, "layer": 2, "step": 1}

    def run() -> tuple[Any, ...]:
        fnn.manual_seed(3)
        y, pullback = fnn.vjp(lambda t: function(t, 0.4, layer=2), x)
        return y, *pullback(dy)

    y, dx = same_bits(run)
    np.testing.assert_array_equal(y, expected(x, 0.4, **stream))
    np.testing.assert_array_equal(dx, expected(dy, 0.4, **stream))


def test_every_call_is_a_step_and_a_seed_starts_again() -> None:
    layer = nn.Dropout(0.5)
    x = np.ones((4, 100), np.float32)
    fnn.manual_seed(5)
    first, second = layer(x), layer(x)
    assert not np.array_equal(first, second)
    for step, y in enumerate((first, second), 1):
        np.testing.assert_array_equal(y != 0, layer.mask(step, x.shape, seed=5))
    fnn.manual_seed(5)
    np.testing.assert_array_equal(layer(x), first)
    np.testing.assert_array_equal(layer(x), second)


def test_layers_have_streams_of_their_own() -> None:
    fnn.manual_seed(1)
    layers = [nn.Dropout(), nn.Dropout(), nn.Dropout2d(), nn.Dropout1d()]
    assert [layer.layer for layer in layers] == [0, 1, 2, 3]
    masks = [layer.mask(1, (1000, 1, 1, 1)) for layer in layers]
    agreement = [(a == b).mean() for i, a in enumerate(masks) for b in masks[:i]]
    assert max(agreement) < 0.6


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
def test_rate_mean_and_variance(p: float) -> None:
    count = 400_000
    y = F.dropout(np.ones(count, np.float32), p).astype(float)
    assert abs((y == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / count)
    assert abs(y.mean() - 1) < 5 * np.sqrt(p / (1 - p) / count)
    assert abs(y.var() - p / (1 - p)) < 0.02 * (1 + p / (1 - p))
    kept = (y != 0) - (1 - p)
    for distance in (1, 2, 3, 4, 8, 16, 64, 1024):  # neighbours are independent
        assert abs(np.mean(kept[distance:] * kept[:-distance])) < 5 * p * (1 - p) / np.sqrt(count)


def test_the_ends_are_exact(isa: str) -> None:
    x = np.array([1.5, np.inf, -np.inf, np.nan, 0.0], np.float32)
    np.testing.assert_array_equal(F.dropout(x, 0.0), x)
    np.testing.assert_array_equal(F.dropout(x, 1.0), np.zeros(5))
    np.testing.assert_array_equal(F.dropout2d(x.reshape(1, 5, 1, 1), 1.0), np.zeros((1, 5, 1, 1)))
    assert not np.signbit(F.dropout(-x[:1], 1.0)).any()


@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.Dropout(0.0).train(), nn.Dropout2d(0.3)], ids=repr)
def test_nothing_of_it_is_left_in_an_inference_plan(layer: nn.Module) -> None:
    model = nn.Sequential(nn.ReLU(), layer, nn.ReLU())
    model.eval()
    assert [step.kernel for step in model.plan((2, 3, 4, 5)).steps] == ["relu_forward"] * 2
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    np.testing.assert_array_equal(layer.eval()(x), x)


def test_no_mask_is_stored(rng: np.random.Generator) -> None:
    def build(graph: Any, x: Any) -> Any:
        y = F.dropout(x * 2.0, 0.5)
        gradients = differentiate(graph, {y: y}, [x])
        return [gradients[x]]

    plan = Compiled(build).plan([((64, 1000), "f", "memory")])
    assert plan.peak_bytes <= 64 * 1000 * 4, "forward and backward share one array of the input's size"


@pytest.mark.parametrize("make", [nn.Dropout, nn.Dropout1d, nn.Dropout2d])
@pytest.mark.parametrize(
    ("p", "error"), [(-0.1, ValueError), (1.1, ValueError), (float("nan"), ValueError), ("a", TypeError)]
)
def test_probabilities_that_are_none(make: Callable[..., Any], p: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="p "):
        make(p)
    with pytest.raises(error, match="p "):
        F.dropout(np.ones(3), p)


def test_ranks_that_do_not_fit() -> None:
    with pytest.raises(
        ValueError, match=r"Dropout2d\(p=0.5, inplace=False\): the input must have the shape \(N,C,H,W\)"
    ):
        nn.Dropout2d()(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"the input must have the shape \(N,C,L\)"):
        nn.Dropout1d()(np.zeros((2, 3)))


def test_repr() -> None:
    assert repr(nn.Dropout(0.25)) == "Dropout(p=0.25, inplace=False)"


NOISES = [(F.gaussian_dropout, reference.gaussian_dropout, reference.gaussian_dropout_backward),
          (F.alpha_dropout, reference.alpha_dropout, reference.alpha_dropout_backward)]  # fmt: skip


@pytest.mark.parametrize(("function", "expected", "backward"), NOISES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gaussian_and_alpha_dropout(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...],
    function: Callable[..., Any], expected: Callable[..., Any], backward: Callable[..., Any],
) -> None:  # fmt: skip
    """Bound: 8 roundings of |x| (1 + deviation * 7) (csrc/kernels/noise_dropout.c; |z| < 6.6 for words of 31 bits)."""
    x, dy = normal(rng, shape), normal(rng, shape)
    stream = {"training": True, "seed": 3, "layer": 2, "step": 1}

    def run() -> tuple[Any, ...]:
        fnn.manual_seed(3)
        y, pullback = fnn.vjp(lambda t: function(t, 0.3, training=True, layer=2), x)
        return y, *pullback(dy)

    y, dx = same_bits(run)
    bound = 8 * 2.0**-24 * (1 + 7 * np.sqrt(0.3 / 0.7))
    for got, wanted, scale in (
        (y, expected(np.float64(x), 0.3, **stream), x),
        (dx, backward(np.float64(dy), 0.3, **stream), dy),
    ):
        assert (np.abs(got - wanted) <= bound * (np.abs(scale) + 3)).all()


@pytest.mark.parametrize("layer", [nn.GaussianDropout(0.3), nn.AlphaDropout(0.3)])
def test_noise_keeps_mean_and_scale(layer: nn.Module) -> None:
    """At 200,000 elements of N(0, 1) the mean's deviation is 0.0024 at most, the variance's 0.005: six of them."""
    x = np.random.default_rng(1).standard_normal(200_000)
    y = layer(x)
    variance = 1.0 if isinstance(layer, nn.AlphaDropout) else 1 / (1 - 0.3)
    assert abs(y.mean()) < 6 * 0.0027
    assert abs(y.var() / variance - 1) < 6 * 0.006
    assert np.array_equal(layer.eval()(x), np.float32(x))
    layer.train()


def test_gaussian_dropout_needs_p_below_one() -> None:
    for call in (lambda: nn.GaussianDropout(1.0), lambda: F.gaussian_dropout(np.ones(3), 1.0)):
        with pytest.raises(ValueError, match="p < 1"):
            call()
    with pytest.raises(TypeError, match="has no mask"):
        nn.GaussianDropout(0.5).mask(0, (3,))


CLASSIC = [(F.dropout, reference.dropout, (7, 13)), (F.dropout, reference.dropout, (2, 19, 5, 7)),
           (F.dropout1d, reference.dropout1d, (3, 17, 5)), (F.dropout2d, reference.dropout2d, (3, 19, 5, 7))]  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("function", "expected", "shape"), CLASSIC)
def test_classic_dropout(
    isa: str, same_bits: SameBits, rng: np.random.Generator, function: Callable[..., Any],
    expected: Callable[..., Any], shape: tuple[int, ...], p: float, training: bool,
) -> None:  # fmt: skip
    """No scaling in training, times 1 - p otherwise: forward and backward the reference's bits."""
    x, dy = normal(rng, shape), normal(rng, shape)
    stream = {"seed": 3, "layer": 2, "step": 1, "mode": "classic"}

    def run() -> tuple[Any, ...]:
        fnn.manual_seed(3)
        y, pullback = fnn.vjp(lambda t: function(t, p, training, layer=2, mode="classic"), x)
        return y, *pullback(dy)

    y, dx = same_bits(run)
    np.testing.assert_array_equal(y, expected(x, p, training, **stream))
    np.testing.assert_array_equal(dx, expected(dy, p, training, **stream))


@pytest.mark.parametrize("make", [nn.Dropout, nn.Dropout1d, nn.Dropout2d])
def test_classic_layers(make: Callable[..., Any], rng: np.random.Generator) -> None:
    shape = {nn.Dropout: (5, 40), nn.Dropout1d: (5, 40, 3), nn.Dropout2d: (5, 40, 3, 2)}[make]
    layer = make(0.25, mode="classic")
    x = normal(rng, shape)
    fnn.manual_seed(4)
    np.testing.assert_array_equal(layer(x), np.where(layer.mask(1), x, 0))
    np.testing.assert_array_equal(layer.eval()(x), x * np.float32(0.75))
    assert repr(layer).endswith("(p=0.25, inplace=False, mode='classic')")
    with pytest.raises(ValueError, match="mode must be 'inverted' or 'classic', got 'modern'"):
        make(mode="modern")


def test_classic_and_inverted_agree_in_the_mean() -> None:
    """Both forms expect the same of a net with one dropout: classic inference is (1 - p) times the inverted one."""
    x = np.ones(200_000, np.float32)
    classic, inverted = nn.Dropout(0.4, mode="classic"), nn.Dropout(0.4)
    assert abs(classic(x).mean() - classic.eval()(x).mean()) < 5 * np.sqrt(0.24 / x.size)
    assert abs(inverted(x).mean() - inverted.eval()(x).mean()) < 5 * np.sqrt(0.4 / 0.6 / x.size)


LAYERS = [nn.Dropout(0.3), nn.Dropout1d(0.3), nn.Dropout2d(0.3), nn.AlphaDropout(0.3), nn.GaussianDropout(0.3)]


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_what_a_training_step_drew_can_be_seen_afterwards(layer: nn.Module, rng: np.random.Generator) -> None:
    """mask(step), or noise(step), of a Trainer's step with its seed: the shape is the one the layer saw."""
    from fastnn import optim

    shape = {nn.Dropout1d: (6, 4, 5), nn.Dropout2d: (6, 4, 5, 3)}.get(type(layer), (6, 20))
    with pytest.raises(ValueError, match="no input was seen so far"):
        type(layer)(0.3).mask(1) if not isinstance(layer, nn.GaussianDropout) else type(layer)(0.3).noise(1)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(int(np.prod(shape[1:])), 1, bias=False))
    model[2].weight.data = np.ones(model[2].weight.shape)
    trainer = fnn.Trainer(model, lambda output, target: (output * target).sum(), optim.SGD(lr=1.0), seed=11)
    x = normal(rng, shape)
    for step in (1, 2, 3):
        before = model[2].weight.data.copy()
        trainer.step(x, np.ones((6, 1)))
        used = (before - model[2].weight.data).reshape(
            shape[1:]
        )  # the gradient: the sum over the batch of what came through
        if isinstance(layer, nn.GaussianDropout):
            through = x * layer.noise(step, seed=11)
        elif isinstance(layer, nn.AlphaDropout):
            through = reference.alpha_dropout(x, 0.3, training=True, seed=11, layer=layer.layer, step=step)
            kept = layer.mask(step, seed=11)
            assert (np.isclose(through, through[~kept][0]) == ~kept).all()
        else:
            through = np.where(layer.mask(step, seed=11), x / np.float32(0.7), 0)
        np.testing.assert_allclose(used, through.sum(0), atol=2e-5)
