"""Batch normalisation, with batch or running statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import ACTIVATIONS, FLOATS_PER_NANOSECOND, elements
from .rounding import ROW_BLOCKS

WORKSPACE_ROWS = 2 * ROW_BLOCKS + 4
"""Floats a channel that the kernels of batch normalisation work with (FNN_BATCH_NORM_ROWS)."""

Names = tuple[str, ...]


def named_inputs(node: Node, first: int = 1) -> dict[str, Tensor]:
    """The optional inputs behind the first ones, by the names in the attribute `given`."""
    return dict(zip(node.given, node.inputs[first:], strict=True))


def rows_and_channels(x: Tensor) -> dict[str, int]:
    """A batch of vectors (N,C) or images (N,C,H,W) as the matrix that it is in memory."""
    positions = x.shape[2] * x.shape[3] if x.ndim == 4 else 1
    return {"rows": x.shape[0] * positions, "channels": x.shape[1]}


def check_vectors(x: Tensor, given: Names, inputs: Sequence[Tensor]) -> None:
    """x is (N,C) or (N,C,H,W), and each optional input has its shape."""
    if x.ndim not in (2, 4):
        raise ValueError(f"batch normalisation is recorded for (N,C) or (N,C,H,W), not {x.shape}")
    for name, tensor in zip(given, inputs, strict=True):
        expected = {"residual": x.shape, "y": x.shape, "batches": (), "statistics": (3, x.shape[1])}.get(
            name, (x.shape[1],)
        )
        if tensor.shape != expected:
            raise ValueError(f"{name} must have shape {expected} for an input of shape {x.shape}, got {tensor.shape}")


class _Forward(Op):
    """y (shape of x) and the statistics used (3,C).

    `given` names the inputs behind x, some of residual, weight, bias, running_mean, running_variance, batches;
    `activation` is what follows in the same pass: None, "relu" or "relu6".
    """

    batch_statistics: ClassVar[bool]

    def infer(self, x: Tensor, *inputs: Tensor, given: Names, **_: Any) -> tuple[Spec, Spec]:  # type: ignore[override]
        check_vectors(x, given, inputs)
        return x.spec, Spec((3, x.shape[1]))

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        x, dy = node.inputs[0], dys[0]
        if dy is None:
            return [None] * len(node.inputs)
        named = named_inputs(node)
        need = dict(zip(node.given, needed[1:], strict=True))
        kept: dict[str, Tensor] = {name: named[name] for name in ("weight", "bias") if name in named}
        if node.activation is not None and "residual" in named:
            kept["y"] = node.outputs[0]
        wanted = tuple(
            n for n in ("x", "residual", "weight", "bias") if (needed[0] if n == "x" else need.get(n, False))
        )
        recorded = dy.graph.record(
            "batch_norm_backward", dy, x, node.outputs[1], *kept.values(),
            given=tuple(kept), wanted=wanted, activation=node.activation, batch_statistics=self.batch_statistics,
        )  # fmt: skip
        gradients = dict(zip(wanted, recorded, strict=True))
        return [gradients.get("x"), *(gradients.get(name) for name in node.given)]

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 0}

    def common_arguments(self, node: Node, steps: Lowering) -> dict[str, Any]:
        x, named = node.inputs[0], named_inputs(node)
        return {
            "x": steps.pointer(x),
            "y": steps.pointer(node.outputs[0]),
            "statistics": steps.pointer(node.outputs[1]),
            "workspace": steps.workspace(WORKSPACE_ROWS * x.shape[1] * 4),
            "eps": node.eps,
            "activation": ACTIVATIONS[node.activation],
            **{name: steps.pointer(named.get(name)) for name in ("residual", "weight", "bias")},
            **rows_and_channels(x),
        }


@register
class BatchNormTrain(_Forward):
    """Normalises with the batch's mean and biased variance; `momentum` None: the running ones are plain averages."""

    name = "batch_norm_train"
    batch_statistics = True

    def lower(self, node: Node, steps: Lowering) -> None:
        named = named_inputs(node)
        steps.step(
            "batch_norm_train_forward",
            elements(node.inputs[0]) / FLOATS_PER_NANOSECOND * 2,
            running_mean=steps.pointer(named.get("running_mean")),
            running_variance=steps.pointer(named.get("running_variance")),
            batches=steps.pointer(named.get("batches")),
            moments=steps.pointer(named.get("moments")),
            moment_rows=node.attributes.get("moment_rows", 0),
            momentum=-1.0 if node.momentum is None else node.momentum,
            unbiased=int(node.unbiased),
            **self.common_arguments(node, steps),
        )


@register
class BatchNormTrack(BatchNormTrain):
    """BatchNormTrain that updates running_mean and running_variance (C) and counts the batches."""

    name = "batch_norm_track"
    has_effects = True

    def writes(self, node: Node) -> tuple[int, ...]:
        tracked = ("running_mean", "running_variance", "batches")
        return tuple(1 + i for i, name in enumerate(node.given) if name in tracked)


@register
class BatchNormEval(_Forward):
    """Normalises with running_mean and running_variance."""

    name = "batch_norm_eval"
    batch_statistics = False

    def lower(self, node: Node, steps: Lowering) -> None:
        named = named_inputs(node)
        steps.step(
            "batch_norm_eval_forward",
            elements(node.inputs[0]) / FLOATS_PER_NANOSECOND,
            running_mean=steps.pointer(named["running_mean"]),
            running_variance=steps.pointer(named["running_variance"]),
            **self.common_arguments(node, steps),
        )


@register
class BatchNormBackward(Op):
    """Gradients of x, residual, weight, bias, those that `wanted` names, from dy, x and the statistics.

    `given` names the inputs behind those three: weight, bias, y where a ReLU followed a residual addition, and the sums of
    blocks of `sum_rows` rows where the convolution that made dy took them.
    """

    name = "batch_norm_backward"

    def infer(  # type: ignore[override]
        self, dy: Tensor, x: Tensor, statistics: Tensor, *inputs: Tensor, given: Names, wanted: Names, **_: Any
    ) -> tuple[Spec, ...]:
        check_vectors(x, given, inputs)
        return tuple(x.spec if name in ("x", "residual") else Spec((x.shape[1],)) for name in wanted)

    def in_place(self, node: Node) -> dict[int, int]:
        """dx may be dy; so may dresidual, where dx is not asked for."""
        for name in ("x", "residual"):
            if name in node.wanted:
                return {node.wanted.index(name): 0}
        return {}

    def lower(self, node: Node, steps: Lowering) -> None:
        dy, x, statistics = node.inputs[:3]
        named = named_inputs(node, 3)
        gradients = {name: steps.pointer(tensor) for name, tensor in zip(node.wanted, node.outputs, strict=True)}
        steps.step(
            "batch_norm_backward",
            elements(x) / FLOATS_PER_NANOSECOND * 2,
            dy=steps.pointer(dy),
            x=steps.pointer(x),
            y=steps.pointer(named.get("y")),
            sums=steps.pointer(named.get("sums")),
            sum_rows=node.attributes.get("sum_rows", 0),
            statistics=steps.pointer(statistics),
            weight=steps.pointer(named.get("weight")),
            bias=steps.pointer(named.get("bias")),
            dx=gradients.get("x"),
            dresidual=gradients.get("residual"),
            dweight=gradients.get("weight"),
            dbias=gradients.get("bias"),
            workspace=steps.workspace(WORKSPACE_ROWS * x.shape[1] * 4),
            batch_statistics=int(node.batch_statistics),
            activation=ACTIVATIONS[node.activation],
            **rows_and_channels(x),
        )
