"""Choosing the instruction set: by default, by environment, for a block; and which one a plan is made for."""

from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from subprocesses import output_of

import fastnn as fnn
from fastnn import _core, nn

KERNELS = {"relu_forward"}


def test_the_best_isa_is_the_default() -> None:
    assert output_of("import fastnn; print(fastnn.current_isa())") == fnn.available_isas()[-1]


def test_environment_chooses(isa: str) -> None:
    assert output_of("import fastnn; print(fastnn.current_isa())", FASTNN_ISA=isa) == isa


def test_empty_environment_is_unset() -> None:
    assert output_of("import fastnn; print(fastnn.current_isa())", FASTNN_ISA="") == fnn.available_isas()[-1]


def test_use_isa_nests_and_restores() -> None:
    best = fnn.current_isa()
    for name in fnn.available_isas():
        with fnn.use_isa(name):
            assert fnn.current_isa() == name
            with fnn.use_isa("scalar"):
                assert fnn.current_isa() == "scalar"
            assert fnn.current_isa() == name
    assert fnn.current_isa() == best


def test_use_isa_restores_after_an_error() -> None:
    best = fnn.current_isa()
    with pytest.raises(ZeroDivisionError), fnn.use_isa("scalar"):
        raise ZeroDivisionError
    assert fnn.current_isa() == best


@pytest.mark.parametrize("name", ["sse2", "AVX2", "", "neon2"])
def test_unknown_isa(name: str) -> None:
    with pytest.raises(ValueError, match=r"use_isa: this CPU does not run '.*'; it runs scalar"), fnn.use_isa(name):
        pass


def test_the_cpu_and_the_list_of_isas_agree() -> None:
    """What /proc/cpuinfo says, where there is one, and what dispatch found."""
    information = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not information.exists():
        assert fnn.available_isas()[0] == "scalar"
        return
    flags = set()
    for line in information.read_text().splitlines():
        if line.startswith("flags"):
            flags = set(line.split(":")[1].split())
            break
    if not fnn.available_isas()[1:]:  # under emulation cpuinfo is the host's
        return
    assert ("avx2" in fnn.available_isas()) == {"avx2", "fma"}.issubset(flags)
    wanted = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
    assert ("avx512" in fnn.available_isas()) == wanted.issubset(flags)


def test_a_plan_is_made_for_the_isa_of_the_call(isa: str) -> None:
    model = nn.Sequential(nn.ReLU())
    assert f"isa {isa}" in str(model.plan((3, 7)))


def test_one_model_on_all_isas_at_once(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.ReLU())
    x = rng.standard_normal((33, 129)).astype(np.float32)
    expected = np.maximum(x, 0)

    def work(name: str) -> bool:
        with fnn.use_isa(name):
            return all(bool((model(x) == expected).all()) for _ in range(50))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, fnn.available_isas() * 2))


def test_a_program_refuses_an_isa_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="does not run ISA 'mmx'"):
        _core.Program("mmx", [], (), (), 0)


@pytest.mark.parametrize("name", ["fastest", "", "DIRECT"])
def test_unknown_convolution_algorithm(name: str) -> None:
    with pytest.raises(ValueError, match="none of auto, direct, winograd"), fnn.conv_algorithm(name):
        pass
