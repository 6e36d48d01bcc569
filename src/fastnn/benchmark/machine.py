"""The machine's own limits: fused multiply-adds from registers, and copying from and to memory."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from .. import _core
from ..settings import current_isa, get_num_threads

FMA_CHAINS = 12  # of csrc/kernels/peak.c
COPY_BYTES = 256 << 20


@dataclass(frozen=True)
class Machine:
    """Measured limits of one instruction set with one number of threads."""

    isa: str
    threads: int
    gflops: float
    """Peak of float32 fused multiply-adds, two operations each, in 10^9 a second."""
    copy_gbs: float
    """Copying large arrays: bytes read plus bytes written, in 10^9 a second."""


def _best(program: _core.Program, externals: tuple[np.ndarray, ...], rounds: int) -> float:
    program.run(externals)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        program.run(externals)
        best = min(best, time.perf_counter() - start)
    return best


def measure_machine(rounds: int = 7) -> Machine:
    """Measures with the current ISA and number of threads; takes about half a second."""
    isa, threads = current_isa(), get_num_threads()
    iterations = 4_000_000
    result = np.zeros(threads, np.float32)
    fma = _core.Program(
        isa,
        [
            (
                "fma_peak",
                {"result": _core.Pointer(_core.EXTERNAL, 0, 0, result.nbytes), "iterations": iterations},
                _core.EVENLY,
            )
        ],
        (),
        (result.nbytes,),
        0,
        team=threads,
    )
    operations = 2.0 * threads * iterations * FMA_CHAINS * _core.ISAS[isa]["lanes"]
    gflops = operations / _best(fma, (result,), rounds) * 1e-9
    x, y = np.ones(COPY_BYTES // 4, np.float32), np.ones(COPY_BYTES // 4, np.float32)
    arguments = {
        "x": _core.Pointer(_core.EXTERNAL, 0, 0, COPY_BYTES),
        "y": _core.Pointer(_core.EXTERNAL, 1, 0, COPY_BYTES),
        "count": COPY_BYTES // 4,
    }
    copy = _core.Program(isa, [("copy", arguments, _core.PIECEWISE)], (), (COPY_BYTES, COPY_BYTES), 0)
    return Machine(isa, threads, gflops, 2 * COPY_BYTES / _best(copy, (x, y), rounds) * 1e-9)
