"""Functions NumPy lacks: erf and erfc in double precision, and a logistic function that cannot overflow.

Source: W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23 (1969):
three rational functions, for |x| below 0.46875, below 4 and above. Stated error: a few units in the last place.
"""

from __future__ import annotations

import numpy as np

from .checks import Array, as_float

# Numerators and denominators, the highest power first. The denominators' leading coefficient is 1.
_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
_LARGE = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip
_SMALL_LIMIT, _LARGE_LIMIT = 0.46875, 4.0
_INVERSE_SQRT_PI = 0.56418958354775628695


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    numerator, denominator = coefficients
    return np.polyval(numerator, x) / np.polyval(denominator, x)


def _exp_of_minus_square(y: Array) -> Array:
    """exp(-y^2) with y^2 split into an exact part and a small rest, so that rounding y^2 costs no digits."""
    coarse = np.trunc(y * 16.0) / 16.0
    return np.exp(-coarse * coarse) * np.exp(-(y - coarse) * (y + coarse))


def _erfc_above_small(y: Array) -> Array:
    """erfc(y) for y >= 0.46875."""
    middle = np.minimum(y, _LARGE_LIMIT)
    large = np.maximum(y, _LARGE_LIMIT)
    inverse_square = 1.0 / (large * large)
    tail = (_INVERSE_SQRT_PI - inverse_square * _ratio(_LARGE, inverse_square)) / large
    bounded = np.minimum(y, 30.0)  # erfc underflows to zero at 26.6
    return np.where(y <= _LARGE_LIMIT, _ratio(_MIDDLE, middle), tail) * _exp_of_minus_square(bounded)


def erf(x: Array) -> Array:
    """2/sqrt(pi) * the integral of exp(-t^2) from 0 to x; any shape, computed in float64, the dtype of x returned.

    >>> erf(np.array([0.0, np.inf, -np.inf])).tolist()
    [0.0, 1.0, -1.0]
    """
    x = as_float(x, "x")
    y = np.abs(x.astype(np.float64))
    small = np.minimum(y, _SMALL_LIMIT)
    value = np.where(
        y <= _SMALL_LIMIT, small * _ratio(_SMALL, small * small), 1.0 - _erfc_above_small(np.maximum(y, _SMALL_LIMIT))
    )
    return np.copysign(value, x).astype(x.dtype)


def erfc(x: Array) -> Array:
    """1 - erf(x) without cancellation for large x; any shape, computed in float64, the dtype of x returned.

    >>> erfc(np.array([0.0, -np.inf, np.inf])).tolist()
    [1.0, 2.0, 0.0]
    """
    x = as_float(x, "x")
    y = np.abs(x.astype(np.float64))
    upper = _erfc_above_small(np.maximum(y, _SMALL_LIMIT))
    value = np.where(y <= _SMALL_LIMIT, 1.0 - erf(x.astype(np.float64)), np.where(x < 0, 2.0 - upper, upper))
    return value.astype(x.dtype)


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), written with exp of negative numbers only.

    >>> logistic(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    decayed = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + decayed), decayed / (1 + decayed))


def log_one_plus_exp(x: Array) -> Array:
    """log(1 + exp(x)), written with exp of negative numbers only.

    >>> log_one_plus_exp(np.array([-1000.0, 1000.0])).tolist()
    [0.0, 1000.0]
    """
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
