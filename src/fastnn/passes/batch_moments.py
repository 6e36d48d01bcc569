"""Training: a convolution takes the sums that the batch normalisation behind it would begin with.

Where that is faster (ops/convolution_moments.py). Who else reads the convolution's result makes no difference.
"""

from __future__ import annotations

from ..graph import Graph, Node, Spec, Tensor
from ..ops.convolution_geometry import geometry_of
from ..ops.convolution_moments import block_count, block_rows


def take_moments(graph: Graph) -> None:
    """conv2d, then batch_norm_train or batch_norm_track -> conv2d with a second output, which the normalisation reads."""
    for node in graph.nodes:
        maker = node.inputs[0].node if node.op.name in ("batch_norm_train", "batch_norm_track") else None
        if maker is not None and maker.op.name == "conv2d" and _with_moments(graph, maker):
            node.inputs.append(maker.outputs[1])
            node.attributes |= {"given": (*node.given, "moments"), "moment_rows": maker.moment_rows}


def _with_moments(graph: Graph, maker: Node) -> bool:
    """Gives a convolution its second output, if it has none yet."""
    if len(maker.outputs) == 1 and maker.attributes.keys().isdisjoint(("has_residual", "activation")):
        y = maker.outputs[0].shape
        rows = block_rows(geometry_of(maker.inputs[0].shape, maker.inputs[1].shape, maker.attributes), y)
        if rows:
            maker.attributes["moment_rows"] = rows
            maker.outputs.append(Tensor(graph, Spec((block_count(y, rows), 3, y[1])), maker))
    return len(maker.outputs) == 2


def take_gradient_sums(graph: Graph) -> None:
    """conv2d_backward_data, then batch_norm_backward with the batch's statistics -> conv2d_backward_data with a second output.

    Not where a residual addition came before the activation: whether that was open is not seen from the normalisation's input.
    """
    for node in graph.nodes:
        if node.op.name != "batch_norm_backward" or not node.batch_statistics or "y" in node.given:
            continue
        maker = node.inputs[0].node
        if maker is None or maker.op.name != "conv2d_backward_data" or len(maker.outputs) > 1:
            continue
        rows = block_rows(geometry_of(maker.shape, maker.inputs[1].shape, maker.attributes), maker.shape)
        if rows:
            _take_sums(graph, maker, node, rows)


def _take_sums(graph: Graph, maker: Node, reader: Node, rows: int) -> None:
    _, x, statistics, *parameters = reader.inputs
    maker.inputs += [x, statistics, *parameters]
    maker.attributes |= {
        "norm_given": ("normalized", "statistics", *(f"norm_{name}" for name in reader.given)),
        "norm_activation": reader.activation,
        "sum_rows": rows,
    }
    maker.outputs.append(Tensor(graph, Spec((block_count(maker.shape, rows), 2, x.shape[1])), maker))
    reader.inputs.append(maker.outputs[1])
    reader.attributes |= {"given": (*reader.given, "sums"), "sum_rows": rows}
