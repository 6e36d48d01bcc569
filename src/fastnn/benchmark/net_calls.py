"""Whole nets as calls: inference and training step in fastnn and in the libraries that it is compared with.

Every contender gets the same images, in the memory order that it likes best, and PyTorch's initial weights where PyTorch
is there. Optimizer of the training step: SGD with momentum.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn, optim
from ..models import NETS
from ..settings import set_num_threads

LEARNING_RATE, MOMENTUM = 1e-4, 0.9
INFERENCE, TRAINING = "inference", "training"
PEERS = {
    "torch": "torch",
    "torch channels_last": "torch",
    "torch.compile": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}
"""Contenders beside fastnn, with the package each one needs."""

Call = Callable[[], Any]


@dataclass(frozen=True)
class Task:
    """What is measured: a net, the kind of run, how many images at once, on how many threads."""

    net: str
    kind: str
    batch: int
    threads: int

    def images(self) -> Any:
        """The batch, (N,C,H,W) and contiguous in that order."""
        shape = (self.batch, *NETS[self.net].image)
        return np.random.default_rng(0).standard_normal(shape, np.float32)

    def labels(self) -> Any:
        """A class for each image."""
        return np.random.default_rng(1).integers(0, NETS[self.net].classes, self.batch)


def installed(kind: str = INFERENCE) -> list[str]:
    """The peers that this environment can run; torch.compile needs a C++ compiler."""
    found = [name for name, package in PEERS.items() if find_spec(package) is not None]
    if find_spec("torch") is None or find_spec("onnx") is None:  # the files for these come from PyTorch
        found = [name for name in found if PEERS[name] == "torch"]
    if not any(shutil.which(compiler) for compiler in ("c++", "g++", "clang++")):
        found = [name for name in found if name != "torch.compile"]
    return [name for name in found if kind == INFERENCE or PEERS[name] == "torch"]


def ours(task: Task, state: Any = None) -> Call:
    """The net in fastnn, with the given state of the same net in PyTorch, called as a user calls it."""
    model = NETS[task.net].make(nn)
    if state is not None:
        model.load_state_dict(state)
    x = task.images()
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if task.kind == INFERENCE:
        model.eval()
        return lambda: model(x)
    from ..train import Trainer

    trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=LEARNING_RATE, momentum=MOMENTUM), seed=0)
    y = task.labels()
    return lambda: trainer.step(x, y)


def torch_state(net: str) -> Any:
    """The initial state of a net in PyTorch, the same every time."""
    import torch

    torch.manual_seed(0)
    return {name: value.numpy() for name, value in NETS[net].make(torch.nn).state_dict().items()}


def _torch_model(task: Task) -> Any:
    import torch

    torch.manual_seed(0)
    return NETS[task.net].make(torch.nn).train(task.kind == TRAINING)


def torch_call(task: Task, channels_last: bool, compiled: bool) -> Call:
    """The net in PyTorch, eager or compiled by Inductor; the optimizer in its fused form."""
    import torch

    model, x = _torch_model(task), torch.from_numpy(task.images())
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    runner = torch.compile(model) if compiled else model
    if task.kind == INFERENCE:

        def infer() -> Any:
            with torch.inference_mode():
                return runner(x).numpy()

        return infer
    y = torch.from_numpy(task.labels())
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = torch.nn.functional.cross_entropy(runner(x), y)
        value.backward()
        optimizer.step()
        return float(value.item())

    return step


def onnx_file(task: Task, folder: Path) -> Path:
    """The net as an ONNX file for this batch size, from PyTorch's exporter."""
    path = folder / f"{task.net}-{task.batch}.onnx"
    if path.exists():
        return path
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses packages that no net here needs
    model, x = _torch_model(replace(task, kind=INFERENCE)), torch.from_numpy(task.images())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), str(path), input_names=["x"], output_names=["y"], dynamo=True, verbose=False)
    return path


def onnxruntime_call(path: Path, task: Task) -> Call:
    """The net in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = {"x": task.images()}
    return lambda: session.run(None, x)[0]


def openvino_call(path: Path, task: Task) -> Call:
    """The net in OpenVINO, told to compute in float32."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": task.threads, "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }  # fmt: skip
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    x = task.images()
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)[0]


def _with_threads(set_threads: Callable[[int], Any], threads: int, call: Call) -> Call:
    """The call with its library's setting made before it: contenders of both thread counts take turns."""
    set_threads(threads)
    call()

    def prepared() -> Any:
        set_threads(threads)
        return call()

    return prepared


def make_call(contender: str, task: Task, folder: Path | None = None, state: Any = None) -> Call:
    """A contender's call, ready to be timed; `folder` holds ONNX files."""
    if contender == "fastnn":
        set_num_threads(task.threads)
        return ours(task, state)
    folder = Path(tempfile.mkdtemp()) if folder is None else folder
    if contender == "onnxruntime":
        return onnxruntime_call(onnx_file(task, folder), task)
    if contender == "openvino":
        return openvino_call(onnx_file(task, folder), task)
    import torch

    call = torch_call(task, contender != "torch", contender == "torch.compile")
    return _with_threads(torch.set_num_threads, task.threads, call)
