"""The 1,797 handwritten digits that scikit-learn ships (Alpaydin and Kaynak, UCI repository, 1998)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..variable import Array


class Digits(NamedTuple):
    """Images (N,1,8,8), float32 from 0 to 1, and classes (N,), int64 from 0 to 9.

    >>> digits = load_digits()
    >>> digits.x_train.max().item(), digits.y_test.dtype
    (1.0, dtype('int64'))
    """

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def load_digits(test_size: float = 0.2, seed: int = 0) -> Digits:
    """The digits in two parts with the same share of each class.

    Parameters
    ----------
    test_size : share of the test part, between 0 and 1.
    seed : of the split, 0 to 2**32 - 1.

    Raises ImportError without scikit-learn.

    >>> digits = load_digits()
    >>> digits.x_train.shape, digits.x_test.shape
    ((1437, 1, 8, 8), (360, 1, 8, 8))
    """
    try:
        from sklearn import datasets, model_selection
    except ImportError as error:
        raise ImportError(
            "load_digits takes its images from scikit-learn, which is not installed: pip install fastnn[examples]"
        ) from error
    raw = datasets.load_digits()
    images = np.ascontiguousarray(raw.images[:, None], np.float32) / np.float32(16)
    labels = raw.target.astype(np.int64)
    x_train, x_test, y_train, y_test = model_selection.train_test_split(
        images, labels, test_size=test_size, random_state=seed, stratify=labels
    )
    return Digits(x_train, y_train, x_test, y_test)
