"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from .group import Rule, flag, not_negative, pair_of_fractions
from .optimizer import Optimizer


class Adam(Optimizer):
    """Adaptive moments (Kingma and Ba 2015); arguments and arithmetic of torch.optim.Adam.

    g = gradient + weight_decay * w; m = b1 * m + (1 - b1) * g; v = b2 * v + (1 - b2) * g * g;
    w -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) at step t = 1, 2, ... of the optimizer.

    Parameters
    ----------
    params : the parameters or groups of them; None: all trainable parameters of the trainer's model.
    lr : learning rate of at least 0, or a schedule (a callable step -> lr).
    betas : how much of the moments stays, each in [0, 1).
    eps, weight_decay : at least 0.
    amsgrad : divide by the largest v so far.
    maximize : go up, not down.

    Raises ValueError or TypeError for settings that do not make sense; NaN among them.

    >>> Adam(betas=(0.9, 1.0))
    Traceback (most recent call last):
    ...
    ValueError: Adam: betas[1] must lie in [0, 1), got 1.0
    """

    operation = "adam_update"
    decoupled: ClassVar[bool] = False
    rules: ClassVar[Mapping[str, Rule]] = {
        **Optimizer.rules, "betas": pair_of_fractions, "eps": not_negative, "weight_decay": not_negative,
        "amsgrad": flag, "maximize": flag,
    }  # fmt: skip

    def __init__(
        self, params: Iterable[Any] | None = None, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize
        )

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if settings["amsgrad"] else ()))

    def attributes(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        names = ("betas", "eps", "weight_decay", "amsgrad", "maximize")
        return {**{name: settings[name] for name in names}, "decoupled": self.decoupled}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); arguments of torch.optim.AdamW.

    Before the step of Adam, w shrinks by lr * weight_decay * w, and g = gradient.

    >>> AdamW().param_groups[0]["weight_decay"]
    0.01
    """

    decoupled = True

    def __init__(
        self, params: Iterable[Any] | None = None, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)
