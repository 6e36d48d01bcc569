"""Losses over classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..graph import Node, Op, Shape, Spec, Tensor, register
from ..plan import Lowering
from .elementwise import EXPONENTIALS_PER_NANOSECOND, FLOATS_PER_NANOSECOND, elements
from .rounding import ceil_div

REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}

CROSS_ENTROPY_BLOCK, NLL_BLOCK = 64, 1024
"""Of csrc/kernels/cross_entropy.c and nll_loss.c: rows whose loss and weight are added up to two doubles."""


def rows_and_classes(scores: Tensor) -> tuple[int, int]:
    """Scores (N,C) or (N,C,H,W) as the matrix that they are in memory."""
    classes = scores.shape[1]
    return scores.shape[0] * (scores.shape[2] * scores.shape[3] if scores.ndim == 4 else 1), classes


class _ClassLoss(Op):
    """What the losses of class indices share: only the scores have a gradient."""

    def gradient(self, node: Node, needed: Sequence[bool], *dys: Tensor | None) -> Sequence[Tensor | None]:
        dloss = dys[0]
        if any(needed[1:]):
            raise TypeError(f"{self.name} has no gradient with respect to its targets or class weights")
        dscores = None if dloss is None else self.score_gradient(node, dloss)
        return [dscores, *[None] * (len(node.inputs) - 1)]

    def score_gradient(self, node: Node, dloss: Tensor) -> Tensor:
        """Of the first input."""
        raise NotImplementedError(self.name)


def _label_arguments(node: Node, inputs: Sequence[Tensor], steps: Lowering) -> dict[str, Any]:
    labels, *weight = inputs
    return {
        "labels": steps.pointer(labels),
        "class_weight": steps.pointer(weight[0] if weight else None),
        "ignore_index": node.ignore_index,
        "reduction": REDUCTIONS[node.reduction],
    }


@register
class CrossEntropy(_ClassLoss):
    """loss, log-sum-exp (rows) and total weight (1) of scores (N,C) or (N,C,H,W) and class indices (N) or (N,H,W).

    A third input is the class weights (C). Attributes: ignore_index, label_smoothing, reduction ("none": the loss has
    the shape of the indices).
    """

    name = "cross_entropy"

    def infer(  # type: ignore[override]
        self, scores: Tensor, labels: Tensor, *weight: Tensor, ignore_index: int, label_smoothing: float, reduction: str
    ) -> tuple[Spec, Spec, Spec]:
        rows, _ = rows_and_classes(scores)
        return Spec(labels.shape if reduction == "none" else ()), Spec((rows,)), Spec((1,))

    def score_gradient(self, node: Node, dloss: Tensor) -> Tensor:
        return dloss.graph.record("cross_entropy_backward", dloss, *node.outputs[1:], *node.inputs, **node.attributes)

    def lower(self, node: Node, steps: Lowering) -> None:
        loss, log_sum_exp, total_weight = node.outputs
        rows, _ = rows_and_classes(node.inputs[0])
        steps.step(
            "cross_entropy_forward",
            elements(node.inputs[0]) / EXPONENTIALS_PER_NANOSECOND,
            loss=steps.pointer(loss),
            log_sum_exp=steps.pointer(log_sum_exp),
            total_weight=steps.pointer(total_weight),
            workspace=steps.workspace(8 * 2 * ceil_div(rows, CROSS_ENTROPY_BLOCK)),
            **_common_arguments(node, node.inputs, steps),
        )


def _common_arguments(node: Node, inputs: Sequence[Tensor], steps: Lowering) -> dict[str, Any]:
    scores, *labels_and_weight = inputs
    rows, classes = rows_and_classes(scores)
    return {
        "logits": steps.pointer(scores),
        **_label_arguments(node, labels_and_weight, steps),
        "rows": rows,
        "classes": classes,
        "label_smoothing": node.label_smoothing,
    }


@register
class CrossEntropyBackward(Op):
    """dscores from dloss, log-sum-exp, total weight and the forward pass's inputs."""

    name = "cross_entropy_backward"

    def infer(  # type: ignore[override]
        self, dloss: Tensor, log_sum_exp: Tensor, total_weight: Tensor, scores: Tensor, *inputs: Tensor, **_: Any
    ) -> Spec:
        return scores.spec

    def in_place(self, node: Node) -> dict[int, int]:
        return {0: 3}

    def lower(self, node: Node, steps: Lowering) -> None:
        dloss, log_sum_exp, total_weight, *inputs = node.inputs
        steps.step(
            "cross_entropy_backward",
            elements(inputs[0]) / EXPONENTIALS_PER_NANOSECOND,
            dloss=steps.pointer(dloss),
            log_sum_exp=steps.pointer(log_sum_exp),
            total_weight=steps.pointer(total_weight),
            dlogits=steps.pointer(node.outputs[0]),
            **_common_arguments(node, inputs, steps),
        )


@register
class NegativeLogLikelihood(_ClassLoss):
    """loss and total weight (1) of log-probabilities (N,C) or (N,C,H,W) and class indices (N) or (N,H,W).

    A third input is the class weights (C). Attributes: ignore_index, reduction ("none": the loss has the shape of the
    indices).
    """

    name = "nll_loss"

    def infer(self, x: Tensor, labels: Tensor, *weight: Tensor, ignore_index: int, reduction: str) -> tuple[Spec, Spec]:  # type: ignore[override]
        return Spec(labels.shape if reduction == "none" else ()), Spec((1,))

    def score_gradient(self, node: Node, dloss: Tensor) -> Tensor:
        x, *inputs = node.inputs
        return dloss.graph.record(
            "nll_loss_backward", dloss, node.outputs[1], *inputs, shape=x.shape, **node.attributes
        )

    def lower(self, node: Node, steps: Lowering) -> None:
        x, *inputs = node.inputs
        rows, classes = rows_and_classes(x)
        steps.step(
            "nll_loss_forward",
            rows / FLOATS_PER_NANOSECOND * 16,
            x=steps.pointer(x),
            loss=steps.pointer(node.outputs[0]),
            total_weight=steps.pointer(node.outputs[1]),
            workspace=steps.workspace(8 * 2 * ceil_div(rows, NLL_BLOCK)),
            rows=rows,
            classes=classes,
            **_label_arguments(node, inputs, steps),
        )


@register
class NegativeLogLikelihoodBackward(Op):
    """dx from dloss, total weight, class indices and class weights; the log-probabilities themselves are not needed."""

    name = "nll_loss_backward"

    def infer(self, dloss: Tensor, total_weight: Tensor, *inputs: Tensor, shape: Shape, **_: Any) -> Spec:  # type: ignore[override]
        return Spec(shape)

    def lower(self, node: Node, steps: Lowering) -> None:
        dloss, total_weight, *inputs = node.inputs
        rows, classes = rows_and_classes(node.outputs[0])
        steps.step(
            "nll_loss_backward",
            elements(node.outputs[0]) / FLOATS_PER_NANOSECOND,
            dloss=steps.pointer(dloss),
            total_weight=steps.pointer(total_weight),
            dx=steps.pointer(node.outputs[0]),
            rows=rows,
            classes=classes,
            **_label_arguments(node, inputs, steps),
        )
