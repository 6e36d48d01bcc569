"""How many threads: affinity, container quota, environment, threadpoolctl; and what a run leaves behind."""

from __future__ import annotations

import ctypes
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from subprocesses import output_of, run_python
from threadpoolctl import threadpool_info, threadpool_limits

import fastnn as fnn
from fastnn import _core, nn

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PRINT_THREADS = "import fastnn; print(fastnn.get_num_threads())"


# ---- container quotas, from files that look like the kernel's


class Container:
    """A made-up /sys/fs/cgroup and /proc/self/cgroup."""

    def __init__(self, path: Path) -> None:
        self.root = path / "cgroup"
        self.root.mkdir()
        self.process = path / "self-cgroup"

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def quota(self, process: str) -> int:
        self.process.write_text(process)
        return int(_core.thread_limits(str(self.root), str(self.process))["cgroup"])


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


@pytest.mark.parametrize(
    ("text", "threads"),
    [
        ("max 100000\n", 0),
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("400000 100000\n", 4),
        ("25000 50000\n", 1),
        ("9223372036854775807 1\n", 1024),
        ("0 100000\n", 0),
        ("100000 0\n", 0),
        ("-1 100000\n", 0),
        ("many 100000\n", 0),
        ("100000\n", 0),
        ("", 0),
    ],
)
def test_version_2_quota(container: Container, text: str, threads: int) -> None:
    container.write("docker/box/cpu.max", text)
    assert container.quota("0::/docker/box\n") == threads


def test_version_2_quota_of_a_group_above_counts(container: Container) -> None:
    container.write("a/b/c/cpu.max", "500000 100000\n")
    container.write("a/b/cpu.max", "max 100000\n")
    container.write("a/cpu.max", "300000 100000\n")
    assert container.quota("0::/a/b/c\n") == 3
    container.write("cpu.max", "200000 100000\n")
    assert container.quota("0::/a/b/c\n") == 2
    assert container.quota("0::/\n") == 2


def test_version_1_quota(container: Container) -> None:
    container.write("cpu,cpuacct/job/cpu.cfs_quota_us", "250000\n")
    container.write("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    lines = "11:memory:/job\n4:cpu,cpuacct:/job\n3:cpuset:/other\n1:name=systemd:/init.scope\n"
    assert container.quota(lines) == 3
    container.write("cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n")
    assert container.quota(lines) == 0


def test_version_1_quota_needs_the_cpu_controller(container: Container) -> None:
    container.write("cpuset/job/cpu.cfs_quota_us", "100000\n")
    container.write("cpuset/job/cpu.cfs_period_us", "100000\n")
    assert container.quota("3:cpuset:/job\n") == 0


def test_least_of_both_versions(container: Container) -> None:
    container.write("unified/cpu.max", "600000 100000\n")
    container.write("cpu/job/cpu.cfs_quota_us", "200000\n")
    container.write("cpu/job/cpu.cfs_period_us", "100000\n")
    assert container.quota("4:cpu:/job\n0::/unified\n") == 2


@pytest.mark.parametrize(
    "process", ["", "nonsense\n", "0:\n", ":::::\n", "0::" + "/x" * 3000 + "\n", "0::\n", "\x00\n"]
)
def test_strange_cgroup_files_mean_no_quota(container: Container, process: str) -> None:
    assert container.quota(process) == 0


def test_missing_cgroup_files_mean_no_quota(tmp_path: Path) -> None:
    limits = _core.thread_limits(str(tmp_path / "none"), str(tmp_path / "nor this"))
    assert limits["cgroup"] == 0
    assert limits["chosen"] >= 1


def test_chosen_is_the_least_limit(container: Container) -> None:
    container.write("box/cpu.max", "100000 100000\n")
    container.process.write_text("0::/box\n")
    limits = _core.thread_limits(str(container.root), str(container.process))
    assert limits["affinity"] == CPUS
    assert limits["chosen"] == 1


# ---- affinity and environment, read when fastnn is imported


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no CPU affinity")
def test_affinity() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + PRINT_THREADS
    assert output_of(code) == "1"


def test_default_is_what_limits_allow() -> None:
    code = "from fastnn import _core; print(_core.get_num_threads() == _core.thread_limits()['chosen'])"
    assert output_of(code) == "True"


NUMBERS = [("1", 1), (" 1 ", 1), ("4096", None), ("", None)]
NO_NUMBERS = ["0", "-3", "two", "1x"]


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [(name, value, limit) for name in ("OMP_NUM_THREADS", "FASTNN_NUM_THREADS") for value, limit in NUMBERS]
    + [("OMP_NUM_THREADS", "1,4", 1)]
    + [("OMP_NUM_THREADS", value, None) for value in NO_NUMBERS],
)
def test_environment(name: str, value: str, limit: int | None) -> None:
    code = "from fastnn import _core; limits = _core.thread_limits(); print(limits['chosen'], _core.get_num_threads())"
    expected = limit or int(output_of(PRINT_THREADS))
    chosen = output_of(code, **{name: value}).split()
    assert chosen == [str(expected)] * 2


@pytest.mark.parametrize("value", [*NO_NUMBERS, "1,4"])
def test_own_variable_must_be_a_number(value: str) -> None:
    code = """
try:
    import fastnn
except ValueError as error:
    print(error)
"""
    assert (
        output_of(code, FASTNN_NUM_THREADS=value)
        == f"FASTNN_NUM_THREADS: {value!r} is not a number of threads, one or more"
    )


def test_least_of_both_variables() -> None:
    code = "from fastnn import _core; print(_core.thread_limits())"
    limits = output_of(code, OMP_NUM_THREADS="3", FASTNN_NUM_THREADS="2")
    assert "'OMP_NUM_THREADS': 3" in limits
    assert "'FASTNN_NUM_THREADS': 2" in limits
    assert f"'chosen': {min(int(output_of(PRINT_THREADS)), 2)}" in limits


def test_openmp_thread_limit_gives_a_smaller_team() -> None:
    """The runtime may give fewer threads than asked for; the work is then shared among those that came."""
    code = """
        import numpy as np, fastnn as fnn
        fnn.set_num_threads(8)
        x = np.random.default_rng(0).standard_normal(1_000_000, np.float32)
        print(bool((fnn.nn.functional.relu(x) == np.maximum(x, 0)).all()))
    """
    for limit in ("1", "2", "3"):
        assert output_of(code, OMP_THREAD_LIMIT=limit) == "True"
        assert output_of(code, OMP_THREAD_LIMIT=limit, OMP_DYNAMIC="true") == "True"


# ---- set_num_threads and threadpoolctl


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_than_one_thread_is_refused(threads: int) -> None:
    before = fnn.get_num_threads()
    with pytest.raises(ValueError, match="at least 1"):
        fnn.set_num_threads(threads)
    assert fnn.get_num_threads() == before


@pytest.mark.parametrize("threads", [1.5, "2", None])
def test_threads_are_an_integer(threads: object) -> None:
    with pytest.raises(TypeError):
        fnn.set_num_threads(threads)


def test_threads_beyond_an_int() -> None:
    with pytest.raises(OverflowError):
        fnn.set_num_threads(2**40)


def test_threadpoolctl_lists_fastnn() -> None:
    fnn.set_num_threads(3)
    ours = [pool for pool in threadpool_info() if pool["internal_api"] == "fastnn"]
    assert len(ours) == 1
    assert ours[0]["num_threads"] == 3
    assert ours[0]["user_api"] == "openmp"
    assert ours[0]["version"] == fnn.__version__


@pytest.mark.parametrize("api", [None, "openmp"])
def test_threadpoolctl_limits_and_restores(api: str | None) -> None:
    fnn.set_num_threads(5)
    with threadpool_limits(1, user_api=api):
        assert fnn.get_num_threads() == 1
        with threadpool_limits(2, user_api=api):
            assert fnn.get_num_threads() == 2
        assert fnn.get_num_threads() == 1
    assert fnn.get_num_threads() == 5


def test_threadpoolctl_limits_by_prefix() -> None:
    fnn.set_num_threads(5)
    with threadpool_limits({"_core": 2}):
        assert fnn.get_num_threads() == 2
    assert fnn.get_num_threads() == 5


def test_blas_limits_leave_fastnn_alone() -> None:
    fnn.set_num_threads(2)
    with threadpool_limits(1, user_api="blas"):
        assert fnn.get_num_threads() == 2


# ---- what a run leaves behind: the floating-point mode

SUBNORMAL = np.float32(1e-40)


class Add(nn.Module):
    """a + b"""

    def forward(self, a: fnn.Tensor, b: fnn.Tensor) -> fnn.Tensor:
        return a + b


def float_mode() -> int:
    """The control bits of the vector unit: rounding, flush modes, masks; not the flags, which NumPy clears."""
    environment = ctypes.create_string_buffer(64)
    assert ctypes.CDLL("libm.so.6").fegetenv(environment) == 0
    if platform.machine() == "x86_64":  # 28 bytes of x87 state, then MXCSR, whose low six bits are flags
        return int.from_bytes(environment.raw[28:32], "little") & ~0x3F
    return int.from_bytes(environment.raw[:4], "little")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="reads the environment through glibc")
def test_float_mode_is_the_same_after_a_run(isa: str, threads: int) -> None:
    """Flushing, overflow, invalid operations and subnormal numbers inside leave the caller's mode alone."""
    values = np.array([np.inf, np.nan, 3e38, 1e-45, 1.2e-38], np.float32)
    a = np.tile(values, (64, 1000))
    model = Add()
    before = float_mode()
    model(a, -a)
    model(a, a)
    assert float_mode() == before


def test_subnormal_numbers_are_flushed_inside_and_kept_outside(isa: str, threads: int) -> None:
    model = Add()
    a, b = np.full((64, 1021), 1.5e-38, np.float32), np.full((64, 1021), -1.3e-38, np.float32)
    assert (a + b).all(), "the caller's arithmetic has subnormal numbers"
    assert not model(a, b).any(), "a subnormal result is flushed to zero"
    assert (a + b).all(), "and still has them after a run"
    a[:], b[:] = SUBNORMAL, SUBNORMAL
    assert not model(a, b).any(), "a subnormal operand counts as zero"
    assert SUBNORMAL * np.float32(1) == SUBNORMAL


# ---- many Python threads


def test_ten_python_threads_on_one_model(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.ReLU(), nn.Flatten(1))
    inputs = [rng.standard_normal((4, 3, 17, 13)).astype(np.float32) for _ in range(10)]
    fnn.set_num_threads(2)
    one_by_one = [model(x).tobytes() for x in inputs]
    with ThreadPoolExecutor(10) as pool:
        for _ in range(20):
            assert [y.tobytes() for y in pool.map(model, inputs)] == one_by_one


def test_python_threads_compile_the_same_plan_at_once(rng: np.random.Generator) -> None:
    for size in range(1, 12):
        model = nn.Sequential(nn.ReLU(), nn.Flatten(1))
        x = rng.standard_normal((2, size, 5, 7)).astype(np.float32)
        expected = np.maximum(x, 0).reshape(2, -1)
        with ThreadPoolExecutor(10) as pool:
            assert all((y == expected).all() for y in pool.map(model, [x] * 10))


def test_threads_and_isas_are_each_threads_own(rng: np.random.Generator) -> None:
    """use_isa holds in the thread that asked for it alone."""

    def isa_in_thread(_: int) -> str:
        return fnn.current_isa()

    with fnn.use_isa("scalar"), ThreadPoolExecutor(1) as pool:
        assert next(iter(pool.map(isa_in_thread, [0]))) == fnn.available_isas()[-1]


def test_unknown_isa_in_environment_is_an_error() -> None:
    result = run_python("import fastnn", FASTNN_ISA="mmx")
    assert result.returncode != 0
    assert "this CPU does not run 'mmx'" in result.stderr
