"""Training loops: Trainer, callbacks, metrics, history."""

from .callbacks import Callback, CSVLogger, EarlyStopping, LambdaCallback, ReduceLROnPlateau, TerminateOnNaN
from .history import History
from .metrics import Accuracy, ConfusionMatrix, Mean, Metric
from .trainer import Trainer

__all__ = [
    "Accuracy",
    "CSVLogger",
    "Callback",
    "ConfusionMatrix",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "Mean",
    "Metric",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
    "Trainer",
]
