"""The NumPy reference: one readable function per operation, forward and backward, in any float dtype.

Names and arguments are those of `torch.nn.functional`; `<operation>_backward` takes the output's gradient first and
returns the gradients of the inputs. Called with float64 these functions are what every compiled kernel is tested
against; called by a reader they say what each operation means. Arrays are logical N,C,H,W with any strides.
"""

from __future__ import annotations

from .adaptive_pooling import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    adaptive_max_pool2d,
    adaptive_max_pool2d_backward,
)
from .convolution import (
    conv1d,
    conv1d_backward,
    conv2d,
    conv2d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
)
from .dropout import (
    alpha_dropout,
    alpha_dropout_backward,
    dropout,
    dropout1d,
    dropout1d_backward,
    dropout2d,
    dropout2d_backward,
    dropout_backward,
    dropout_mask,
    gaussian_dropout,
    gaussian_dropout_backward,
)
from .linear import linear, linear_backward
from .loss import cross_entropy, cross_entropy_backward
from .normalization import Normalized, batch_norm, batch_norm_backward
from .optimizer import adagrad_step, adam_step, adamw_step, rmsprop_step, sgd_step
from .pooling import (
    avg_pool1d,
    avg_pool1d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    lp_pool2d,
    lp_pool2d_backward,
    max_pool1d,
    max_pool1d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from .random import keep_mask, keep_threshold, normal, philox4x32, random_bits, uniform
from .rectifier import relu, relu_backward
from .shape import flatten, flatten_backward
from .softmax import log_softmax, log_softmax_backward, softmax, softmax_backward

__all__ = [
    "Normalized",
    "adagrad_step",
    "adam_step",
    "adamw_step",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "alpha_dropout",
    "alpha_dropout_backward",
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout1d",
    "dropout1d_backward",
    "dropout2d",
    "dropout2d_backward",
    "dropout_backward",
    "dropout_mask",
    "flatten",
    "flatten_backward",
    "gaussian_dropout",
    "gaussian_dropout_backward",
    "keep_mask",
    "keep_threshold",
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "lp_pool2d",
    "lp_pool2d_backward",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "normal",
    "philox4x32",
    "random_bits",
    "relu",
    "relu_backward",
    "rmsprop_step",
    "sgd_step",
    "softmax",
    "softmax_backward",
    "uniform",
]
