"""A case as calls into another library, in the better of its memory formats."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .cases import Case
from .ours import random_input
from .timing import Call


def set_threads(threads: int) -> None:
    """Lets PyTorch use as many threads as we do."""
    import torch

    torch.set_num_threads(threads)


def _torch_calls(case: Case, channels_last: bool) -> tuple[Call, Call]:
    import torch

    layer = case.layer(torch.nn).train()
    x = torch.from_numpy(np.ascontiguousarray(random_input(case))).clone()
    if channels_last:
        layer, x = layer.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)

    def forward() -> Any:
        with torch.no_grad():
            return layer(x)

    leaf = x.detach().requires_grad_(case.input_gradient)
    y = layer(leaf)
    wanted = [*([leaf] if leaf.requires_grad else []), *layer.parameters()]
    dy = torch.ones_like(y)
    return forward, lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


def _seconds(call: Call) -> float:
    call()
    start = time.perf_counter()
    call()
    call()
    return time.perf_counter() - start


def torch_calls(case: Case) -> tuple[Call, Call]:
    """Forward and backward in PyTorch, each in whichever memory format is faster here."""
    candidates = [_torch_calls(case, False)]
    if len(case.shape) == 4:
        candidates.append(_torch_calls(case, True))
    best = [min((pair[i] for pair in candidates), key=_seconds) for i in range(2)]
    return best[0], best[1]
