"""Training: a convolution takes the moments of its result for the batch normalisation behind it."""

from __future__ import annotations

from ..graph import Graph, Node, Spec, Tensor
from ..ops.convolution import geometry_of
from ..ops.convolution_moments import moment_rows, moments_shape


def take_moments(graph: Graph) -> None:
    """conv2d, then batch_norm_train or batch_norm_track -> conv2d with a second output, which the normalisation reads.

    Where that is faster: convolution_moments.moment_rows. Who else reads the convolution's result makes no difference.
    """
    for node in graph.nodes:
        maker = node.inputs[0].node if node.op.name in ("batch_norm_train", "batch_norm_track") else None
        if maker is not None and maker.op.name == "conv2d" and _with_moments(graph, maker):
            node.inputs.append(maker.outputs[1])
            node.attributes |= {"given": (*node.given, "moments"), "moment_rows": maker.moment_rows}


def _with_moments(graph: Graph, maker: Node) -> bool:
    """Gives a convolution its second output, if it has none yet."""
    if len(maker.outputs) == 1 and "has_residual" not in maker.attributes:
        g = geometry_of(maker.inputs[0].shape, maker.inputs[1].shape, maker.attributes)
        rows = moment_rows(g)
        if rows:
            maker.attributes["moment_rows"] = rows
            maker.outputs.append(Tensor(graph, Spec(moments_shape(g, rows)), maker))
    return len(maker.outputs) == 2
