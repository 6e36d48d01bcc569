"""Weights with a batch normalisation folded in, for inference."""

from __future__ import annotations

from ..graph import Node, Op, Spec, Tensor, register
from ..plan import Lowering


@register
class BatchNormFold(Op):
    """(scaled weight, new bias) of a linear map followed by a batch normalisation with running statistics.

    weight'[k] = s[k] weight[k], bias'[k] = s[k] (bias[k] - running_mean[k]) + beta[k], s = gamma / sqrt(running_var + eps).
    `given` names the inputs behind the map's weight: some of conv_bias, weight, bias, running_mean, running_variance.
    """

    name = "batch_norm_fold"

    def infer(self, conv_weight: Tensor, *inputs: Tensor, given: tuple[str, ...], eps: float) -> tuple[Spec, Spec]:  # type: ignore[override]
        return conv_weight.spec, Spec(conv_weight.shape[:1])

    def lower(self, node: Node, steps: Lowering) -> None:
        conv_weight = node.inputs[0]
        named = dict(zip(node.given, node.inputs[1:], strict=True))
        out_channels = conv_weight.shape[0]
        steps.step(
            "batch_norm_fold",
            conv_weight.spec.size / 8,
            conv_weight=steps.pointer(conv_weight),
            conv_bias=steps.pointer(named.get("conv_bias")),
            weight=steps.pointer(named.get("weight")),
            bias=steps.pointer(named.get("bias")),
            running_mean=steps.pointer(named["running_mean"]),
            running_variance=steps.pointer(named["running_variance"]),
            folded_weight=steps.pointer(node.outputs[0]),
            folded_bias=steps.pointer(node.outputs[1]),
            out_channels=out_channels,
            inner=conv_weight.spec.size // 4 // out_channels,
            eps=node.eps,
        )
