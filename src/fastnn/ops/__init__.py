"""One object an operation: shape rule, gradient rule, kernels. Importing this package fills graph.OPS."""

from . import (  # noqa: F401
    activation,
    activation_elementwise,
    arithmetic,
    convolution,
    dropout,
    elementwise,
    fold,
    linear,
    loss,
    loss_elementwise,
    normalization,
    normalization_rows,
    optimizer,
    pooling,
    reduction,
    shape,
    slicing,
)
