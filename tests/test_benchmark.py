"""Measuring: peaks, cases read from text, rows of the table, and the command that prints them."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from kernel_runner import run_kernel

from fastnn import _core, nn
from fastnn.benchmark import kernels, optimizers, ours
from fastnn.benchmark.busy_core import busy_core
from fastnn.benchmark.cases import MEMORY, OPTIMIZERS, QUICK, Case, linear, read_cases
from fastnn.benchmark.machine import Machine, measure_machine
from fastnn.benchmark.timing import Timing, alternate
from fastnn.cli import main
from fastnn.profile import profile

KERNELS = {"fma_peak"}


def test_fma_peak_counts_every_thread(isa: str, threads: int) -> None:
    """Every chain tends to term / (1 - factor) = 1, so each thread leaves 12 chains times its lanes."""
    result = run_kernel("fma_peak", {"result": ((threads,), "f4")}, iterations=100_000)["result"]
    np.testing.assert_allclose(result, 12 * _core.ISAS[isa]["lanes"], rtol=1e-3)


def test_machine_is_measured() -> None:
    machine = measure_machine(rounds=1)
    assert machine.gflops > 0.1 and machine.copy_gbs > 0.1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes are not pinned here")
def test_a_core_is_busy_while_the_block_runs() -> None:
    with busy_core() as competitor:
        assert os.sched_getaffinity(competitor) == {max(os.sched_getaffinity(0))}
    with pytest.raises(ProcessLookupError):
        os.sched_getaffinity(competitor)


@pytest.mark.parametrize("file", sorted((Path(__file__).parents[1] / "benchmarks" / "shapes").glob("*.txt")), ids=str)
def test_every_shape_file_is_read(file: Path) -> None:
    cases = read_cases(file.read_text())
    assert cases and len({case.name for case in cases}) == len(cases)


@pytest.mark.parametrize(
    "line",
    [
        "conv 1 2 3",
        "linear 1 2",
        "pool 1 2 3",
        "conv a b c d e f g h i",
        "linear 1 2 3 first",
        "conv 1 2 3 4 5 3x3x3 1 1 1",
        "transpose 1 2 3 4 5 3 1 1 1",
    ],
)
def test_lines_that_are_no_case(line: str) -> None:
    with pytest.raises(ValueError):
        read_cases(line)


@pytest.mark.parametrize(
    ("line", "name", "flops", "output"),
    [
        ("conv 2 6 9 8 4 3x5 2x1 1x2 2 1x2 first", "conv 2x6x9x8 3x5 -> 4 s2x1 g2 d1x2 first", 2 * 2 * 4 * 20 * 45, (5, 4)),
        ("conv 1 3 5 5 7 3 1 1 1", "conv 1x3x5x5 3x3 -> 7", 2 * 7 * 25 * 27, (5, 5)),
        ("transpose 2 6 5 4 8 4 2 1 1 2", "transpose 2x6x5x4 4x4 -> 8 s2 g2", 2 * 2 * 6 * 20 * 4 * 16, (11, 9)),
        ("transpose 1 2 3 4 5 1x3 1 0x1 0 1 2", "transpose 1x2x3x4 1x3 -> 5 d2", 2 * 2 * 12 * 5 * 3, (3, 6)),
    ],
)  # fmt: skip
def test_lines_that_are_cases(line: str, name: str, flops: float, output: tuple[int, int]) -> None:
    (case,) = read_cases(line)
    assert (case.name, case.flops) == (name, flops)
    assert case.input_gradient is not line.endswith("first")
    assert case.layer(nn).plan(case.shape).outputs[0].shape[2:] == output
    for call in ours.calls(case):
        call()


def test_rows_of_a_case() -> None:
    machine = Machine("scalar", 1, 10.0, 10.0)
    rows = list(kernels.measure([linear(4, 8, 3)], machine, None, 0.01))
    assert [row.direction for row in rows] == ["forward", "backward"]
    for row in rows:
        assert row.time.lower <= row.time.median <= row.time.upper
        assert row.ratio is None and row.rate > 0 and row.unit == "GFLOP/s"
        assert json.loads(json.dumps(row.to_json()))["name"] == "linear 4x8 -> 3"


def test_cases_compute_what_they_say() -> None:
    """The timed calls are real: forward gives the layer's result, and each direction has steps to run."""
    case = Case("small", lambda nn: nn.ReLU(), (2, 3, 4, 5), 0.0, 1.0, 1.0)
    forward, backward = ours.calls(case)
    forward(), backward()
    assert all(case.flops > 0 or case.forward_bytes > 0 for case in QUICK)


def test_every_memory_bound_layer_can_be_built() -> None:
    """Each case of the table names a layer that exists and takes the case's input, and says what it must move."""
    for case in MEMORY:
        layer = case.layer(nn).train()
        assert layer.plan(case.shape).outputs and case.forward_bytes > 0 and case.backward_bytes > 0


def test_optimizer_step_is_a_row() -> None:
    case = dataclasses.replace(OPTIMIZERS[0], parameters=((3, 5), (7,)))
    (step,) = optimizers.calls(case)
    step()
    (row,) = kernels.measure([case], Machine("scalar", 1, 10.0, 10.0), None, 0.01)
    assert row.direction == "step" and row.unit == "GB/s" and row.rate > 0


def test_ratio_is_peer_over_ours() -> None:
    row = kernels.Row("x", "forward", Timing(1, 2, 3), 1, "GB/s", 0.5, 1.0, Timing(3, 4, 5))
    assert row.ratio == 2.0


def test_alternate_takes_turns() -> None:
    order: list[str] = []
    alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=1e-9, rounds=3)
    assert order[-12:] == ["a", "a", "b", "b"] * 3  # the first of each is not counted


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert main(["bench", "--filter", "linear 1x4096", "--seconds", "0.01", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "GFLOP/s of float32 FMA" in printed and "linear 1x4096 -> 1000" in printed
    assert len(json.loads(file.read_text())["rows"]) == 2


def test_a_profile_reads_images_the_way_round_that_its_plan_does(rng: np.random.Generator) -> None:
    """Shape (2, 3, 3, 3) has as many bytes either way: an image taken for another would go unnoticed."""
    machine, x = Machine("scalar", 1, 10.0, 10.0), rng.standard_normal((2, 3, 3, 3)).astype(np.float32)
    profiled, called = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    plan = profiled.plan(x.shape)
    for image in (x, np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)):
        plan.profile(image, machine=machine)
        called(image)
        for name, value in called.state_dict().items():
            np.testing.assert_array_equal(profiled.state_dict()[name], value)
    with pytest.raises(ValueError, match=r"an array of shape \(2, 3, 3, 3\), got \(3, 2, 3, 3\)"):
        plan.profile(x.transpose(1, 0, 2, 3), machine=machine)
    for arrays in ((), (x, x)):
        with pytest.raises(ValueError, match=f"takes 1 arrays, got {len(arrays)}"):
            plan.profile(*arrays, machine=machine)


def test_a_profile_of_nothing_took_no_time() -> None:
    found = nn.ReLU().plan((0, 3)).profile(np.zeros((0, 3)), machine=Machine("scalar", 1, 10.0, 10.0))
    assert float(str(found).splitlines()[-1].split()[1]) < 1000  # microseconds


def test_profile_prints_and_saves(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)).eval()
    found = profile(model.plan((2, 3, 6, 6)), np.ones((2, 3, 6, 6)), machine=Machine("scalar", 1, 10.0, 10.0))
    assert found.seconds > 0 and "linear_forward" in str(found)
    convolution = next(step for step in found.steps if step.kernel.startswith("conv2d"))
    assert convolution.flops == 2 * 2 * 4 * 16 * 27
    found.save_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events] == [step.kernel for step in found.steps]
