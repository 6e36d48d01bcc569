"""torch.nn.functional's names: on symbolic tensors they record, on arrays they execute at once."""

from .activation import log_softmax, relu, softmax
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

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "batch_norm", "cat", "conv1d", "conv2d",
    "cross_entropy", "dropout", "dropout1d", "dropout2d", "flatten", "linear", "log_softmax", "max_pool1d",
    "max_pool2d", "relu", "softmax", "unflatten",
]  # fmt: skip
