"""One object an operation: shape rule, gradient rule, kernels. Importing this package fills graph.OPS."""

from . import convolution, dropout, elementwise, fold, linear, normalization, pooling, shape  # noqa: F401
