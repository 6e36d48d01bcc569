"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from .group import Rule, flag, not_negative, number
from .optimizer import Optimizer


class SGD(Optimizer):
    """Gradient descent, with momentum if wanted; arguments and arithmetic of torch.optim.SGD.

    g = gradient + weight_decay * w; buffer = momentum * buffer + (1 - dampening) * g (the first time: buffer = g);
    w -= lr * (g + momentum * buffer if nesterov else buffer).

    Parameters
    ----------
    params : the parameters or groups of them; None: all trainable parameters of the trainer's model.
    lr : learning rate of at least 0, or a schedule (a callable step -> lr).
    momentum, weight_decay : at least 0.
    dampening : any number.
    nesterov : needs momentum above 0 and no dampening.
    maximize : go up, not down.

    Raises ValueError or TypeError for settings that do not make sense; NaN among them.

    >>> SGD(lr=0.1, momentum=0.9).param_groups[0]["momentum"]
    0.9
    """

    operation = "sgd_update"
    rules: ClassVar[Mapping[str, Rule]] = {
        **Optimizer.rules, "momentum": not_negative, "dampening": number, "weight_decay": not_negative,
        "nesterov": flag, "maximize": flag,
    }  # fmt: skip

    def __init__(
        self, params: Iterable[Any] | None = None, lr: Any = 1e-3, momentum: float = 0, dampening: float = 0,
        weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
            nesterov=nesterov, maximize=maximize,
        )  # fmt: skip

    def check(self, settings: Mapping[str, Any]) -> None:
        if settings["nesterov"] and (settings["momentum"] <= 0 or settings["dampening"] != 0):
            raise ValueError(
                f"nesterov needs momentum above 0 and dampening 0, got momentum {settings['momentum']} and "
                f"dampening {settings['dampening']}"
            )

    def state_names(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if settings["momentum"] else ()

    def attributes(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        names = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
        return {name: settings[name] for name in names}
