"""One object an operation: shape rule, gradient rule, kernels. Importing this package fills graph.OPS."""

from . import elementwise, shape  # noqa: F401
