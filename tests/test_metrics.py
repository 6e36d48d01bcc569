"""Metrics: what they count, and which there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fastnn.train import Accuracy, ConfusionMatrix, Mean
from fastnn.train.metrics import make_metrics


def test_accuracy_counts_over_batches(rng: np.random.Generator) -> None:
    scores, labels = rng.standard_normal((29, 5)), rng.integers(0, 5, 29)
    accuracy = Accuracy()
    for start in range(0, 29, 8):
        accuracy.update(scores[start : start + 8], labels[start : start + 8])
    assert accuracy.result() == np.mean(scores.argmax(1) == labels)
    accuracy.reset()
    assert math.isnan(accuracy.result())


def test_accuracy_of_pixels_probabilities_and_ignored_classes() -> None:
    scores = np.zeros((1, 2, 2, 2))
    scores[:, 1] = [[1, -1], [1, -1]]
    accuracy = Accuracy()
    accuracy.update(scores, np.array([[[1, 0], [0, -100]]]))
    assert accuracy.result() == 2 / 3
    accuracy.reset()
    accuracy.update(np.eye(3), np.eye(3)[[0, 1, 1]])
    assert accuracy.result() == 2 / 3


def test_accuracy_needs_scores() -> None:
    with pytest.raises(ValueError, match=r"needs class scores \(N, C, ...\); the model's output has shape \(3,\)"):
        Accuracy().update(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(3, 2\) do not fit targets of shape \(4,\)"):
        Accuracy().update(np.zeros((3, 2)), np.zeros(4))
    for target in (np.zeros(3), np.ones((3, 1))):  # else every sample would be right: there is one class to choose from
        with pytest.raises(ValueError, match=r"shape \(3, 1\); with one score give a function"):
            Accuracy().update(np.zeros((3, 1)), target)


def test_ignored_classes_are_neither_right_nor_wrong() -> None:
    accuracy, matrix = Accuracy(ignore_index=1), ConfusionMatrix(3, ignore_index=1)
    for metric in (accuracy, matrix):
        metric.update(np.eye(3)[[1, 0, 2, 2]], np.array([1, 0, 1, 0]))
        assert metric.result() == 1 / 2
    matrix = ConfusionMatrix(2)
    matrix.update(np.eye(2), np.array([0, -100]))
    assert matrix.counts.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("scores", "target", "message"),
    [
        ([[1, 0]], [-1], "class -1 was true"),
        ([[1, 0]], [2], "class 2 was true"),
        ([[0, 0, 1]], [0], "class 2 was scored"),
    ],
)
def test_classes_that_a_matrix_does_not_have(scores: Any, target: Any, message: str) -> None:
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match=f"ConfusionMatrix of 2 classes: {message}"):
        matrix.update(np.array(scores), np.array(target))
    assert not matrix.counts.any()
    with pytest.raises(ValueError, match="classes must be at least 1"):
        ConfusionMatrix(0)


def test_confusion_matrix(rng: np.random.Generator) -> None:
    scores, labels = rng.standard_normal((50, 4)), rng.integers(0, 4, 50)
    matrix = ConfusionMatrix(4)
    matrix.update(scores[:20], labels[:20])
    matrix.update(scores[20:], labels[20:])
    for row in range(4):
        for column in range(4):
            assert matrix.counts[row, column] == np.sum((labels == row) & (scores.argmax(1) == column))
    assert matrix.result() == np.mean(scores.argmax(1) == labels)
    matrix.reset()
    assert matrix.counts.sum() == 0 and math.isnan(matrix.result())


def test_means_are_weighted_by_samples() -> None:
    mean = Mean(lambda output, target: float(output.max()), "largest")
    mean.update(np.array([1.0, 2.0, 0.0]), np.zeros(3))
    mean.update(np.array([6.0]), np.zeros(1))
    assert mean.name == "largest" and mean.result() == 3.0


def test_metrics_by_name(rng: np.random.Generator) -> None:
    output, target = rng.standard_normal((7, 3)), rng.standard_normal((7, 3))
    squared, absolute = make_metrics(["mean_squared_error", "mean_absolute_error"])
    for metric in (squared, absolute):
        metric.update(output, target)
    assert math.isclose(squared.result(), np.mean((output - target) ** 2), rel_tol=1e-12)
    assert math.isclose(absolute.result(), np.mean(np.abs(output - target)), rel_tol=1e-12)
    assert [metric.name for metric in make_metrics("accuracy")] == ["accuracy"]


def largest(output: Any, target: Any) -> float:
    return float(output.max())


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        (["accurracy"], ValueError, "no metric 'accurracy'; known by name are accuracy"),
        ([3], TypeError, "a metric is a name"),
        (["accuracy", "accuracy"], ValueError, "names of their own"),
        ([largest, largest], ValueError, "names of their own"),
        ([Mean(largest, "loss")], ValueError, "beside the loss"),
    ],
)
def test_wrong_metrics_are_refused(wanted: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_metrics(wanted)
