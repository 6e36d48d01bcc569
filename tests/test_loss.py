"""Cross-entropy with class indices and with probabilities: values, gradients, options, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_check import UNIT, Array, SameBits, assert_within, differentiate, normal

import fastnn as fnn
import fastnn.nn.functional as F
from fastnn import nn, reference

SHAPES = [(5,), (4, 3), (67, 10), (1, 1), (3, 1000), (7, 5, 11), (2, 19, 5, 3)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0, "reduction": "sum"},
    {"ignore_index": 0},
    {"ignore_index": 0, "label_smoothing": 0.3, "reduction": "none"},
]


def case(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Scores, class indices, class weights."""
    classes = shape[0] if len(shape) == 1 else shape[1]
    labels = rng.integers(0, classes, () if len(shape) == 1 else (shape[0], *shape[2:]))
    return 4 * normal(rng, shape), labels, rng.uniform(0.5, 2, classes).astype(np.float32)


def exact(x: Array, target: Array, dy: Array | float, options: dict[str, Any]) -> tuple[Array, Array]:
    """The reference's loss and gradient; it knows no scores without a batch."""
    x, target = (x, target) if x.ndim > 1 else (x[None], np.asarray(target)[None])
    loss = reference.cross_entropy(x.astype(float), target, **options)
    dy = np.reshape(np.asarray(dy, float), np.shape(loss))
    return loss, reference.cross_entropy_backward(dy, x.astype(float), target, **options)


def check(rng: np.random.Generator, same_bits: SameBits, x: Array, target: Array, options: dict[str, Any]) -> None:
    """Bounds of cross_entropy.c: (C / lanes + 12) eps times the magnitude of the terms, lanes at least 1."""
    classes = x.shape[0 if x.ndim == 1 else 1]
    got = differentiate(lambda t: F.cross_entropy(t, target, **options), [x], lambda s: normal(rng, s), same_bits)
    loss, gradient = exact(x, target, got.dy, options)
    weight = options.get("weight")
    heaviest = 1.0 if weight is None else float(np.max(weight)) * (float(np.max(weight)) / float(np.min(weight)))
    scale = heaviest * (2 * np.abs(x).max() + np.log(classes))
    rows = x.size // classes if options.get("reduction") == "sum" else 1
    length = classes + 24
    assert_within(np.reshape(got.y, np.shape(loss)), loss, length * UNIT * scale * rows)
    reach = np.abs(np.asarray(got.dy)).max() if got.dy.size else 0.0
    bound = (length + 2 * np.abs(x).max()) * UNIT * heaviest * reach
    assert_within(np.reshape(got.gradients[0], gradient.shape), gradient, bound)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_class_indices(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], options: dict[str, Any],
    weighted: bool,
) -> None:  # fmt: skip
    x, labels, weight = case(rng, shape)
    options = {**options, "weight": weight} if weighted else options
    if np.all(labels == options.get("ignore_index", -100)) and options.get("reduction", "mean") == "mean":
        assert np.isnan(F.cross_entropy(x, labels, **options))
        return
    check(rng, same_bits, x, labels, options)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [o for o in OPTIONS if "ignore_index" not in o], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_class_probabilities(
    isa: str, same_bits: SameBits, rng: np.random.Generator, shape: tuple[int, ...], options: dict[str, Any],
    weighted: bool,
) -> None:  # fmt: skip
    x, _, weight = case(rng, shape)
    target = reference.softmax(rng.standard_normal(shape), 0 if len(shape) == 1 else 1).astype(np.float32)
    check(rng, same_bits, x, target, {**options, "weight": weight} if weighted else options)


def test_large_scores_do_not_overflow(isa: str) -> None:
    x = np.array([[1e30, 0.0], [-1e30, 1e4]], np.float32)
    y, pullback = fnn.vjp(lambda t: F.cross_entropy(t, np.array([0, 1]), reduction="none"), x)
    np.testing.assert_array_equal(y, [0, 0])
    np.testing.assert_array_equal(pullback(np.ones(2))[0], np.zeros((2, 2)))


def test_a_mean_over_nothing_is_nan() -> None:
    assert np.isnan(F.cross_entropy(np.zeros((0, 3)), np.zeros(0, np.int64)))
    assert np.isnan(nn.CrossEntropyLoss(ignore_index=2)(np.zeros((2, 3)), np.array([2, 2])))


def test_the_layer_is_the_function(rng: np.random.Generator) -> None:
    x, labels, weight = case(rng, (6, 5))
    loss = nn.CrossEntropyLoss(weight, ignore_index=1, reduction="sum", label_smoothing=0.2)
    expected = F.cross_entropy(x, labels, weight, ignore_index=1, reduction="sum", label_smoothing=0.2)
    assert loss(x, labels) == expected
    assert list(loss.state_dict()) == ["weight"]
    for dtype in (np.uint8, np.int16, np.int32, np.uint64):
        assert loss(x, labels.astype(dtype)) == expected


@pytest.mark.parametrize("label", [-1, 5, 2**40])
def test_a_class_out_of_range_is_an_error_before_anything_changes(label: int) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(5)

        def forward(self, x: Any) -> Any:
            return self.norm(x)

    model, labels = Model(), np.array([0, label, 4])
    before = model.state_dict()
    x = np.arange(15.0).reshape(3, 5)
    message = (
        rf"^(CrossEntropyLoss\(\)|cross_entropy): a target is not one of the 5 classes: got {label}, allowed are 0 to 4"
    )
    with pytest.raises(ValueError, match=message):
        fnn.value_and_grad(model, nn.CrossEntropyLoss())(x, labels)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    with pytest.raises(ValueError, match=message):
        nn.CrossEntropyLoss()(x, labels)
    with pytest.raises(ValueError, match=message):
        fnn.vjp(F.cross_entropy, x, target=labels)


@pytest.mark.parametrize(
    ("x", "target", "error", "message"),
    [
        ((4, 3), np.zeros(3, np.int64), ValueError, r"shape \(4,\) for scores of shape \(4, 3\), got \(3,\)"),
        ((4, 3), np.zeros((4, 3), np.int64), ValueError, r"class indices must have the shape \(4,\)"),
        ((4, 3), np.zeros(4), TypeError, r"must be integers, got float32 of shape \(4,\); pass y.astype\(np.int64\)"),
        ((4, 3), np.zeros((3, 4)), ValueError, r"class probabilities must have the scores' shape \(4, 3\)"),
        ((2, 3, 2, 2, 2), np.zeros((2, 2, 2, 2), np.int64), ValueError, r"scores must have the shape"),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit(x: tuple[int, ...], target: Array, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        nn.CrossEntropyLoss()(np.zeros(x), target)
    assert str(caught.value).startswith("CrossEntropyLoss()")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "total"}, "reduction must be"),
        ({"label_smoothing": 1.5}, "label_smoothing must be between 0 and 1"),
        ({"label_smoothing": float("nan")}, "label_smoothing must be a finite number"),
        ({"size_average": True}, "use reduction"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nn.CrossEntropyLoss(**options)
    with pytest.raises(ValueError, match=message):
        F.cross_entropy(np.zeros((2, 3)), np.zeros(2, np.int64), **options)


@pytest.mark.parametrize(
    ("ignored", "error"), [(2.5, TypeError), (True, TypeError), (2**63, ValueError), (None, TypeError)]
)
@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss"])
def test_ignored_labels_that_are_none(name: str, ignored: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"{name}: ignore_index must"):
        getattr(nn, name)(ignore_index=ignored)
    function = F.cross_entropy if name == "CrossEntropyLoss" else F.nll_loss
    with pytest.raises(error, match="ignore_index must"):
        function(np.zeros((2, 3)), np.zeros(2, np.int64), ignore_index=ignored)


@pytest.mark.parametrize("ignored", [-(2**63), 2**63 - 1])
def test_the_farthest_labels_are_ignored(ignored: int) -> None:
    compute = fnn.value_and_grad(nn.Identity(), nn.CrossEntropyLoss(ignore_index=ignored))
    for _ in range(2):
        value, _ = compute(np.zeros((2, 3)), np.array([1, ignored]))
        assert value == pytest.approx(np.log(3))


def test_weights_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"weight must have the shape \(3,\) for scores of shape \(2, 3\), got \(4,\)"):
        nn.CrossEntropyLoss(np.ones(4))(np.zeros((2, 3)), np.zeros(2, np.int64))


@pytest.mark.parametrize("classes", [2, 10, 17, 1000])
def test_gradient_of_a_sure_prediction_keeps_its_digits(isa: str, rng: np.random.Generator, classes: int) -> None:
    """The relative bound of cross_entropy.c: the gradient at the label is a sum of small numbers, not 1 minus nearly 1."""
    x, labels = normal(rng, (23, classes)), rng.integers(0, classes, 23)
    x[np.arange(23), labels] += np.linspace(5, 16, 23).astype(np.float32)
    _, pullback = fnn.vjp(lambda t: F.cross_entropy(t, labels, reduction="sum"), x)
    exact = reference.cross_entropy_backward(np.ones(()), x.astype(float), labels, reduction="sum")
    spread = np.ptp(x, 1).max() + np.log(classes)
    bound = (2 * classes + 20 + 2 * spread) * UNIT * np.abs(exact) + np.finfo(np.float32).tiny
    assert_within(pullback(np.float32(1))[0], exact, bound)


def test_unsigned_labels_do_not_wrap_round() -> None:
    """2**64 - 100 is not -100, which is ignored."""
    labels = np.array([0, 2**64 - 100], np.uint64)
    with pytest.raises(
        ValueError, match=r"^CrossEntropyLoss\(\): labels and indices are at most 2\*\*63 - 1, got 1844"
    ):
        nn.CrossEntropyLoss()(np.zeros((2, 3)), labels)
    assert nn.CrossEntropyLoss()(np.zeros((2, 3)), np.array([0, 2], np.uint64)) > 0


def test_a_class_out_of_range_names_the_layer() -> None:
    with pytest.raises(ValueError, match=r"^CrossEntropyLoss\(\): a target is not one of the 3 classes: got 3"):
        nn.Sequential(nn.CrossEntropyLoss())[0](np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(ValueError, match=r"^cross_entropy: a target is not one of the 3 classes: got -1"):
        nn.functional.cross_entropy(np.zeros((2, 3)), np.array([0, -1]))


@pytest.mark.parametrize(
    ("labels", "advice"), [(np.eye(3, dtype=int)[:2], r"y.argmax\(axis=1\)"), ([[0], [1]], r"y.reshape\(\(2,\)\)")]
)
def test_labels_of_another_shape_get_advice(labels: Any, advice: str) -> None:
    with pytest.raises(ValueError, match=rf"class indices must have the shape \(2,\) .* pass {advice}$"):
        nn.CrossEntropyLoss()(np.zeros((2, 3)), labels)
