"""Where the time of a plan goes: each step beside what the machine could do at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .benchmark.machine import Machine, measure_machine
from .graph import Tensor
from .plan import Plan, Step
from .trace import Argument, argument, check_limits, refresh_constants, runtime_values
from .variable import logical_view, weights_clock


@dataclass(frozen=True)
class StepProfile:
    """One step of a run: what it is, how long it took, and the least work it can be."""

    kernel: str
    shape: tuple[int, ...]
    seconds: float
    flops: float
    size: int
    """Bytes of all tensors that it reads or writes, each once."""
    serial: bool

    def bound(self, machine: Machine) -> float:
        """Seconds that the machine needs at least, by arithmetic or by memory traffic (the roofline)."""
        share = 1.0 / machine.threads if self.serial else 1.0
        return max(self.flops / (machine.gflops * share), self.size / machine.copy_gbs) * 1e-9


@dataclass(frozen=True)
class Profile:
    """The steps of one run of a plan; print it, or save it for chrome://tracing and Perfetto."""

    steps: list[StepProfile]
    machine: Machine

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    def __str__(self) -> str:
        lines = [f"{'kernel':32s} {'shape':22s} {'us':>9s} {'share':>6s} {'rate':>14s} {'roofline':>9s} {'bytes':>12s}"]
        for step in self.steps:
            seconds, share = max(step.seconds, 1e-9), step.seconds / (self.seconds or 1.0)
            rate = (
                f"{step.flops / seconds * 1e-9:7.1f} GFLOP/s"
                if step.flops
                else f"{step.size / seconds * 1e-9:7.1f} GB/s   "
            )
            lines.append(
                f"{step.kernel:32s} {step.shape!s:22s} {step.seconds * 1e6:9.1f} {share:6.1%} {rate:>14s} "
                f"{step.bound(self.machine) / seconds:9.0%} {step.size:12d}"
            )
        lines.append(
            f"{'total':55s} {self.seconds * 1e6:9.1f}   of {self.machine.gflops:.0f} GFLOP/s, {self.machine.copy_gbs:.0f} GB/s"
        )
        return "\n".join(lines)

    def save_trace(self, path: str | Path) -> None:
        """Writes the run in the Trace Event Format, one complete event a step, times in microseconds."""
        import json  # a third of what importing this module would cost

        events: list[dict[str, Any]] = []
        now = 0.0
        for step in self.steps:
            details = {"shape": list(step.shape), "flops": step.flops, "bytes": step.size}
            duration = step.seconds * 1e6
            events.append(
                {"name": step.kernel, "ph": "X", "pid": 1, "tid": 1, "ts": now, "dur": duration, "args": details}
            )
            now += duration
        Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}) + "\n")


def _step_profile(step: Step, seconds: float) -> StepProfile:
    shape = step.node.outputs[0].shape if step.node.outputs else ()
    return StepProfile(step.kernel, shape, seconds, step.flops, step.size, step.serial)


def _as_planned(value: Any, tensor: Tensor) -> Argument:
    """An array as the plan's input takes it: of its shape, and an image the way round that the plan reads it."""
    given = argument(value, tensor.dtype == "int64")
    shape, character, layout = given.key
    if shape != tensor.shape:
        raise ValueError(f"profile: the plan takes an array of shape {tensor.shape}, got {shape}")
    if layout == tensor.layout:
        return given
    image = given.data if layout == "first" else logical_view(given.data)
    data = image if tensor.layout == "first" else image.transpose(0, 2, 3, 1)
    return Argument(np.ascontiguousarray(data), (shape, character, tensor.layout))


def profile(
    plan: Plan, *arrays: Any, machine: Machine | None = None, runtime: Mapping[str, Any] | None = None
) -> Profile:
    """Runs a plan once on the given arrays with the clock read between the steps.

    Parameters
    ----------
    plan : from `model.plan(...)`. Running a plan that changes variables changes them.
    arrays : its inputs; ValueError if their number or a shape is another, before anything runs.
    machine : the limits to compare with; measured if left out.
    runtime : the numbers of the run, where a plan takes some that no default stream gives (`Trainer.profile`).

    >>> import numpy as np
    >>> from fastnn import nn
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval()
    >>> found = profile(model.plan((2, 8)), np.ones((2, 8)))
    >>> [step.kernel for step in found.steps]
    ['linear_forward']
    """
    if len(arrays) != len(plan.inputs):
        raise ValueError(f"profile: the plan takes {len(plan.inputs)} arrays, got {len(arrays)}")
    arguments = [_as_planned(array, tensor) for array, tensor in zip(arrays, plan.inputs, strict=True)]
    check_limits(plan, arguments)
    machine = machine or measure_machine()
    values = runtime_values(plan, runtime)
    refresh_constants(plan)
    outputs = plan.allocate_outputs()
    externals = (*(a.data for a in arguments), *outputs)
    if not plan.written:
        plan.program.run(externals, values)  # the first run touches fresh memory
    seconds = plan.program.profile(externals, values, weights_clock, plan.written)
    steps = [step for step in plan.steps if not step.prologue]
    return Profile([_step_profile(s, t) for s, t in zip(steps, seconds, strict=True)], machine)


Plan.profiler = staticmethod(profile)
