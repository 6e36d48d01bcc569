from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy.typing as npt

KERNELS: Final[dict[str, tuple[tuple[str, str, str], ...]]]
ISAS: Final[dict[str, dict[str, int]]]
TEAM_BACKEND: Final[str]
ARENA: Final[int]
CONSTANT: Final[int]
STATIC: Final[int]
EXTERNAL: Final[int]
PIECEWISE: Final[int]
EVENLY: Final[int]
ALONE: Final[int]

def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def thread_limits(cgroup_root: str = "/sys/fs/cgroup", process_cgroup: str = "/proc/self/cgroup") -> dict[str, int]: ...
def window_positions(
    size: int, kernel: int, stride: int, dilation: int, pad_before: int, pad_after: int, ceil_mode: bool = False
) -> int: ...
def tensor_bytes(shape: Sequence[int], item_bytes: int = 4) -> int: ...
def memory_in_use() -> int: ...
def release_memory() -> None: ...
def new_array(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]: ...

class Pointer:
    space: Final[int]
    index: Final[int]
    offset: Final[int]
    size: Final[int]
    def __init__(self, space: int, index: int, offset: int, size: int) -> None: ...

class Runtime:
    index: Final[int]
    def __init__(self, index: int) -> None: ...

class Memory:
    size: Final[int]
    def __init__(self, size: int) -> None: ...

class Instance: ...

class Program:
    step_count: Final[int]
    prologue: Final[int]
    arena_bytes: Final[int]
    constant_bytes: Final[int]
    value_count: Final[int]
    def __init__(
        self,
        isa: str,
        steps: list[Any],
        statics: tuple[npt.NDArray[Any], ...],
        external_sizes: Sequence[int],
        arena_bytes: int,
        constant_bytes: int = 0,
        prologue: int = 0,
        value_count: int = 0,
        brief: bool = False,
        team: int = 0,
    ) -> None: ...
    def may_write(self, count: int) -> bool: ...
    def refresh(self) -> None: ...
    def run(
        self,
        externals: tuple[npt.NDArray[Any], ...],
        values: tuple[Any, ...] = (),
        clock: Clock | None = None,
        written: tuple[Any, ...] = (),
    ) -> None: ...
    def begin(self) -> Instance: ...
    def run_part(
        self,
        instance: Instance,
        first: int,
        last: int,
        externals: tuple[npt.NDArray[Any], ...],
        values: tuple[Any, ...] = (),
        clock: Clock | None = None,
        written: tuple[Any, ...] = (),
    ) -> None: ...
    def profile(
        self,
        externals: tuple[npt.NDArray[Any], ...],
        values: tuple[Any, ...] = (),
        clock: Clock | None = None,
        written: tuple[Any, ...] = (),
    ) -> list[float]: ...

class Clock:
    now: Final[int]
    def tick(self) -> int: ...
    def own_ticks(self) -> int: ...
    def stamp(self, variables: Iterable[Any]) -> None: ...

class Form:
    def __init__(
        self,
        dtype: str,
        shape: tuple[int, ...],
        channels_last: bool,
        limits: tuple[int, int, int | None] | None = None,
    ) -> None: ...

class Route:
    def __init__(
        self,
        program: Program,
        inputs: tuple[Form, ...],
        outputs: tuple[Form, ...],
        value_names: tuple[str, ...],
        written: tuple[Any, ...],
        choice: object,
        threads: int,
        structure: int,
        weights: int,
    ) -> None: ...

class Calls:
    def __init__(self, choice: Callable[[], object], structure: Clock, weights: Clock) -> None: ...
    def remember(self, route: Route) -> None: ...
    def run(
        self, inputs: tuple[Any, ...], runtime: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[Any], ...] | None: ...
