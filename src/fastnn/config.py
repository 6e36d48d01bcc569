"""What fastnn runs on: CPU, instruction sets, threads, libraries."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np
import threadpoolctl

from . import _core
from .settings import available_isas, current_isa, get_num_threads
from .version import __version__


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("model name", "Model"):
                    return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _isa_reason(isa: str) -> str:
    if os.environ.get("FASTNN_ISA") == isa:
        return "FASTNN_ISA says so"
    return "the best that this CPU runs" if isa == available_isas()[-1] else "use_isa says so"


def _threads_reason(threads: int, limits: dict[str, int]) -> str:
    """Why this many threads; `limits` from _core.thread_limits.

    >>> _threads_reason(2, {"affinity": 8, "cgroup": 2, "OMP_NUM_THREADS": 0, "FASTNN_NUM_THREADS": 0, "chosen": 2})
    'the least of: CPU affinity 8, cgroup quota 2 (OMP_NUM_THREADS, FASTNN_NUM_THREADS: no limit)'
    """
    names = {"affinity": "CPU affinity", "cgroup": "cgroup quota"}
    given = [f"{names.get(n, n)} {value}" for n, value in limits.items() if n != "chosen" and value > 0]
    absent = [names.get(n, n) for n, value in limits.items() if n != "chosen" and value <= 0]
    text = f"the least of: {', '.join(given)}" + (f" ({', '.join(absent)}: no limit)" if absent else "")
    if threads != limits["chosen"]:
        return f"set by set_num_threads or threadpoolctl; the default is {limits['chosen']}, {text}"
    return text


def _openmp_runtimes() -> list[dict[str, Any]]:
    libraries = threadpoolctl.threadpool_info()
    return [
        {"name": library["prefix"], "threads": library["num_threads"], "path": library["filepath"]}
        for library in libraries
        if library["internal_api"] == "openmp"
    ]


def facts() -> dict[str, Any]:
    """All that `show_config` prints, as numbers and text that fit into JSON.

    >>> facts()["isa"] in facts()["available_isas"]
    True
    """
    isa, threads, limits = current_isa(), get_num_threads(), _core.thread_limits()
    return {
        "fastnn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "threadpoolctl": threadpoolctl.__version__,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "available_isas": list(available_isas()),
        "isa": isa,
        "isa_reason": _isa_reason(isa),
        "threads": threads,
        "threads_reason": _threads_reason(threads, limits),
        "thread_limits": limits,
        "team": _core.TEAM_BACKEND,
        "openmp_runtimes": _openmp_runtimes(),
    }


def show_config() -> None:
    """Prints versions, CPU, instruction sets, threads and why that many, and the OpenMP runtime.

    >>> show_config()
    fastnn: ...
    platform: ...
    cpu: ...
    isas: ...
    """
    f = facts()
    runtimes = ", ".join(f"{r['name']} ({r['path']})" for r in f["openmp_runtimes"]) or "none loaded"
    rows = {
        "fastnn": f"{f['fastnn']} (Python {f['python']}, NumPy {f['numpy']}, threadpoolctl {f['threadpoolctl']})",
        "platform": f["platform"],
        "cpu": f["cpu"],
        "isas": ", ".join(f["available_isas"]),
        "isa": f"{f['isa']}: {f['isa_reason']}",
        "threads": f"{f['threads']}: {f['threads_reason']}",
        "team": f["team"],
        "openmp": runtimes,
    }
    for name, value in rows.items():
        print(f"{name + ':':10s}{value}")
