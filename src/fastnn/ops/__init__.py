"""One object an operation: shape rule, gradient rule, kernels. Importing this package fills graph.OPS."""

from . import activation, convolution, dropout, elementwise, fold, linear, loss, normalization, optimizer, pooling, reduction, shape  # noqa: F401
