"""`fastnn train digits`: a convolutional network learns real handwritten digits in seconds."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from .. import nn
from ..data import load_digits
from ..optim import AdamW, CosineDecay
from ..random import manual_seed
from ..settings import current_isa, get_num_threads, set_num_threads
from ..train import ConfusionMatrix, Trainer
from .options import count, missing_folder

HELP = "train a convolutional network on handwritten digits"


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} does not lie in 0 to 2**32 - 1")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of at least 0")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `fastnn train`."""
    data_sets = parser.add_subparsers(title="data sets", required=True, metavar="DATA", dest="data")
    digits = data_sets.add_parser("digits", help="the 8x8 digits of scikit-learn, 80 % to train and 20 % to test")
    digits.set_defaults(parser=digits)
    digits.add_argument("--epochs", type=count, default=15, help="passes over the images (default: %(default)s)")
    digits.add_argument("--batch-size", type=count, default=64, help="images of a step (default: %(default)s)")
    digits.add_argument("--lr", type=_rate, default=5e-3, help="highest learning rate of AdamW (default: %(default)s)")
    digits.add_argument(
        "--seed", type=_seed, default=0, help="of split, weights, order, dropout (default: %(default)s)"
    )
    digits.add_argument("--threads", type=count, help="threads to use (default: as `fastnn info` says)")
    digits.add_argument("--save", type=Path, metavar="FILE", help="write the trained weights to FILE (.npz)")
    digits.add_argument("--no-progress", action="store_true", help="show no progress")


def make_digits_model(dropout: float = 0.3) -> nn.Sequential:
    """A small convolutional network: images (N,1,8,8) -> scores (N,10).

    >>> sum(p.size for p in make_digits_model().parameters())
    99370
    """
    return nn.Sequential(
        *_convolution(1, 32), *_convolution(32, 32), nn.MaxPool2d(2),
        *_convolution(32, 64), *_convolution(64, 64), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(dropout),
        nn.Linear(256, 128), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(128, 10),
    )  # fmt: skip


def _convolution(channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def run(arguments: argparse.Namespace) -> int:
    """Trains, tests, prints; returns the exit status."""
    if missing_folder(arguments.save):
        return _fail(f"--save {arguments.save}: {missing_folder(arguments.save)}")
    if arguments.threads:
        set_num_threads(arguments.threads)
    try:
        digits = load_digits(seed=arguments.seed)
    except ImportError as error:
        return _fail(str(error))
    images = len(digits.x_train)
    print(
        f"{images} images to train with, {len(digits.x_test)} to test with; "
        f"{get_num_threads()} threads, isa {current_isa()}, seed {arguments.seed}"
    )
    manual_seed(arguments.seed)
    model = make_digits_model()
    steps = arguments.epochs * -(-images // arguments.batch_size)
    schedule = CosineDecay(arguments.lr, total=max(steps, 2), warmup=steps // 10)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    trainer = Trainer(model, loss, AdamW(lr=schedule, weight_decay=0.05), ["accuracy"])
    start = time.perf_counter()
    trainer.fit(
        digits.x_train, digits.y_train, arguments.epochs, arguments.batch_size,
        progress=False if arguments.no_progress else "auto",
    )  # fmt: skip
    seconds = time.perf_counter() - start
    confusion = ConfusionMatrix(10)
    confusion.update(trainer.predict(digits.x_test), digits.y_test)
    print(f"\nconfusion matrix (row: the digit, column: what it was taken for)\n{confusion}\n")
    print(f"time: {seconds:.2f} s for {arguments.epochs} epochs, {images * arguments.epochs / seconds:.0f} images/s")
    if arguments.save:
        path = arguments.save if arguments.save.suffix == ".npz" else Path(f"{arguments.save}.npz")
        np.savez(path, **model.state_dict())  # type: ignore[arg-type]  # a name could be allow_pickle, says mypy
        print(f"weights: {path}")
    print(f"test accuracy: {confusion.result():.3f}")
    return 0


def _fail(message: str) -> int:
    print(f"fastnn train: {message}", file=sys.stderr)
    return 1
