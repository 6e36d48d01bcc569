"""One update of one parameter, as PyTorch's optimizers do it: pure functions (parameter, gradient, state) -> new ones.

`state` is None at the first step, then what the last call returned; its keys are PyTorch's. Nothing given is changed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .checks import Array, as_float, check_shape

State = dict[str, Any]


def _checked(parameter: Array, gradient: Array, lr: float, **not_negative: float) -> tuple[Array, Array]:
    parameter, gradient = as_float(parameter, "parameter"), as_float(gradient, "gradient")
    check_shape(gradient, parameter.shape, "gradient")
    for name, value in {"lr": lr, **not_negative}.items():
        if not value >= 0:
            raise ValueError(f"{name} must not be negative or NaN, but is {value}")
    return parameter, gradient


def _check_betas(betas: tuple[float, float]) -> None:
    if not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(f"betas must be in [0, 1), not {betas}")


def sgd_step(
    parameter: Array, gradient: Array, state: State | None = None, lr: float = 1e-3, momentum: float = 0.0,
    dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False,
) -> tuple[Array, State]:  # fmt: skip
    """Stochastic gradient descent; arrays of one shape -> (new parameter, {"momentum_buffer"}).

    g = gradient + weight_decay * parameter; buffer = momentum * buffer + (1 - dampening) * g, at the first step
    buffer = g; direction = g + momentum * buffer if nesterov else buffer; parameter -= lr * direction.
    Raises ValueError for negative or NaN settings, or nesterov without momentum or with dampening.

    >>> sgd_step(np.array([1.0]), np.array([2.0]), lr=0.25)[0].tolist()
    [0.5]
    """
    parameter, gradient = _checked(parameter, gradient, lr, momentum=momentum, weight_decay=weight_decay)
    if nesterov and (momentum <= 0 or dampening != 0):
        raise ValueError("nesterov needs momentum above zero and dampening zero")
    gradient = -gradient if maximize else gradient
    direction = gradient + weight_decay * parameter
    if momentum == 0:
        return parameter - lr * direction, {}
    if not state:
        buffer = direction
    else:
        buffer = momentum * state["momentum_buffer"] + (1 - dampening) * direction
    if nesterov:
        direction = direction + momentum * buffer
    else:
        direction = buffer
    return parameter - lr * direction, {"momentum_buffer": buffer}


def adam_step(
    parameter: Array, gradient: Array, state: State | None = None, lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False, *,
    maximize: bool = False, decoupled_weight_decay: bool = False,
) -> tuple[Array, State]:  # fmt: skip
    """Adam (Kingma and Ba 2015); arrays of one shape -> (new parameter, {"step", "exp_avg", "exp_avg_sq", ...}).

    m = b1*m + (1-b1)*g; v = b2*v + (1-b2)*g^2; parameter -= lr * (m/(1-b1^t)) / (sqrt(v_hat/(1-b2^t)) + eps), with
    g = gradient + weight_decay * parameter and v_hat = v, or with amsgrad the largest v so far ("max_exp_avg_sq").
    decoupled_weight_decay shrinks the parameter by lr * weight_decay instead (AdamW).
    Raises ValueError for negative or NaN settings and betas outside [0, 1).

    >>> adam_step(np.array([1.0]), np.array([2.0]), lr=0.5)[0].round(6).tolist()
    [0.5]
    """
    parameter, gradient = _checked(parameter, gradient, lr, eps=eps, weight_decay=weight_decay)
    _check_betas(betas)
    gradient = -gradient if maximize else gradient
    if decoupled_weight_decay:
        parameter = parameter * (1 - lr * weight_decay)
    else:
        gradient = gradient + weight_decay * parameter
    zeros = np.zeros_like(parameter)
    state = state or {"step": 0, "exp_avg": zeros, "exp_avg_sq": zeros, "max_exp_avg_sq": zeros}
    step = state["step"] + 1
    first = betas[0] * state["exp_avg"] + (1 - betas[0]) * gradient
    second = betas[1] * state["exp_avg_sq"] + (1 - betas[1]) * np.square(gradient)
    new_state: State = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    if amsgrad:
        second = new_state["max_exp_avg_sq"] = np.maximum(state["max_exp_avg_sq"], second)
    denominator = np.sqrt(second) / math.sqrt(1 - betas[1] ** step) + eps
    return parameter - lr / (1 - betas[0] ** step) * first / denominator, new_state


def adamw_step(
    parameter: Array, gradient: Array, state: State | None = None, lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
    maximize: bool = False,
) -> tuple[Array, State]:  # fmt: skip
    """`adam_step` with decoupled weight decay (Loshchilov and Hutter 2019): the parameter shrinks by lr * weight_decay.

    >>> adamw_step(np.array([1.0]), np.array([0.0]), lr=0.5, weight_decay=0.1)[0].tolist()
    [0.95]
    """
    return adam_step(
        parameter, gradient, state, lr, betas, eps, weight_decay, amsgrad,
        maximize=maximize, decoupled_weight_decay=True,
    )  # fmt: skip


def rmsprop_step(
    parameter: Array, gradient: Array, state: State | None = None, lr: float = 1e-2, alpha: float = 0.99,
    eps: float = 1e-8, weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *,
    maximize: bool = False,
) -> tuple[Array, State]:  # fmt: skip
    """RMSprop (Tieleman and Hinton 2012); arrays of one shape -> (new parameter, {"step", "square_avg", ...}).

    v = alpha*v + (1-alpha)*g^2; centered also keeps a = alpha*a + (1-alpha)*g ("grad_avg") and takes v - a^2 for v;
    u = g / (sqrt(v) + eps); with momentum b = momentum*b + u ("momentum_buffer") and u = b; parameter -= lr * u.
    Raises ValueError for negative or NaN settings.

    >>> rmsprop_step(np.array([1.0]), np.array([2.0]), lr=0.05)[0].round(6).tolist()
    [0.5]
    """
    parameter, gradient = _checked(
        parameter, gradient, lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum
    )
    gradient = (-gradient if maximize else gradient) + weight_decay * parameter
    zeros = np.zeros_like(parameter)
    state = state or {"step": 0, "square_avg": zeros, "grad_avg": zeros, "momentum_buffer": zeros}
    new_state: State = {"step": state["step"] + 1}
    new_state["square_avg"] = alpha * state["square_avg"] + (1 - alpha) * np.square(gradient)
    variance = new_state["square_avg"]
    if centered:
        new_state["grad_avg"] = alpha * state["grad_avg"] + (1 - alpha) * gradient
        variance = variance - np.square(new_state["grad_avg"])
    direction = gradient / (np.sqrt(variance) + eps)
    if momentum > 0:
        direction = new_state["momentum_buffer"] = momentum * state["momentum_buffer"] + direction
    return parameter - lr * direction, new_state


def adagrad_step(
    parameter: Array, gradient: Array, state: State | None = None, lr: float = 1e-2, lr_decay: float = 0.0,
    weight_decay: float = 0.0, initial_accumulator_value: float = 0.0, eps: float = 1e-10, *, maximize: bool = False,
) -> tuple[Array, State]:  # fmt: skip
    """Adagrad (Duchi, Hazan and Singer 2011); arrays of one shape -> (new parameter, {"step", "sum"}).

    s = s + g^2; parameter -= lr / (1 + (t-1)*lr_decay) * g / (sqrt(s) + eps), g = gradient + weight_decay * parameter.
    Raises ValueError for negative or NaN settings.

    >>> adagrad_step(np.array([1.0]), np.array([2.0]), lr=0.5)[0].round(6).tolist()
    [0.5]
    """
    parameter, gradient = _checked(
        parameter, gradient, lr, lr_decay=lr_decay, weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value, eps=eps,
    )  # fmt: skip
    gradient = (-gradient if maximize else gradient) + weight_decay * parameter
    state = state or {"step": 0, "sum": np.full_like(parameter, initial_accumulator_value)}
    step, total = state["step"] + 1, state["sum"] + np.square(gradient)
    rate = lr / (1 + (step - 1) * lr_decay)
    return parameter - rate * gradient / (np.sqrt(total) + eps), {"step": step, "sum": total}
