"""Training loops: Trainer, callbacks, metrics, history."""

from .callbacks import Callback, CSVLogger, EarlyStopping, LambdaCallback, ReduceLROnPlateau, TerminateOnNaN
from .checkpoint import ModelCheckpoint
from .guard import Finding, FirstNonFinite
from .history import History
from .metrics import Accuracy, ConfusionMatrix, Mean, Metric
from .monitors import DyingReLU, LayerMonitor, NormMonitor, Norms, RectifiedUnits
from .trainer import Trainer

__all__ = [
    "Accuracy",
    "CSVLogger",
    "Callback",
    "ConfusionMatrix",
    "DyingReLU",
    "EarlyStopping",
    "Finding",
    "FirstNonFinite",
    "History",
    "LambdaCallback",
    "LayerMonitor",
    "Mean",
    "Metric",
    "ModelCheckpoint",
    "NormMonitor",
    "Norms",
    "RectifiedUnits",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
    "Trainer",
]
