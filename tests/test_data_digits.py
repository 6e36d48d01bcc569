"""The digits: shapes, range, a stratified split that the seed decides, the message without scikit-learn."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from fastnn.data import load_digits

pytest.importorskip("sklearn")


def test_digits_are_images_and_classes() -> None:
    digits = load_digits()
    assert digits.x_train.shape == (1437, 1, 8, 8) and digits.x_test.shape == (360, 1, 8, 8)
    for x, y in ((digits.x_train, digits.y_train), (digits.x_test, digits.y_test)):
        assert x.dtype == np.float32 and y.dtype == np.int64 and len(x) == len(y)
        assert x.min() == 0.0 and x.max() == 1.0
        assert np.array_equal(np.unique(y), np.arange(10))


def test_both_parts_have_the_same_shares() -> None:
    digits = load_digits(test_size=0.3, seed=4)
    train, test = (np.bincount(y) / len(y) for y in (digits.y_train, digits.y_test))
    assert np.abs(train - test).max() < 0.005


def test_the_seed_decides_the_split() -> None:
    first, again, other = load_digits(seed=1), load_digits(seed=1), load_digits(seed=2)
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(first.x_test, other.x_test)
    everything = [np.sort(np.concatenate([d.x_train, d.x_test]).reshape(1797, 64), axis=0) for d in (first, other)]
    assert np.array_equal(*everything)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"pip install fastnn\[examples\]"):
        load_digits()
