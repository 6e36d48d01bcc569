"""torch.nn.functional's names: on symbolic tensors they record, on arrays they execute at once."""

from .activation import (
    celu,
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    softsign,
    tanh,
)
from .convolution import conv1d, conv2d, linear
from .dropout import dropout, dropout1d, dropout2d
from .loss import cross_entropy
from .normalization import batch_norm
from .pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)
from .shape import cat, flatten, unflatten
from .softmax import glu, log_softmax, softmax

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "batch_norm", "cat", "celu", "conv1d",
    "conv2d", "cross_entropy", "dropout", "dropout1d", "dropout2d", "elu", "flatten", "gelu", "glu", "hardsigmoid",
    "hardswish", "hardtanh", "leaky_relu", "linear", "log_softmax", "logsigmoid", "max_pool1d", "max_pool2d", "mish",
    "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh", "unflatten",
]  # fmt: skip
