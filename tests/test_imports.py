"""Imports go one way: each room of the package uses the rooms below it alone, and no modules of a room go in circles.

Every import counts, whether at the top of a file, in a function or for types only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastnn

PACKAGE = Path(fastnn.__file__).parent

ORDER = (
    ("_core", "axes", "habits", "locks", "naming", "version", "reference"),
    ("variable", "memory_plan", "random", "threadpool"),
    ("graph",),
    ("plan", "differentiation"),
    ("settings",),
    ("ops", "benchmark.machine", "config"),
    ("passes",),
    ("trace",),
    ("profile", "nn"),
    ("transforms", "optim", "models", "data"),
    ("train",),
    ("benchmark", "selftest"),
    ("cli",),
    ("__init__", "__main__"),
)
"""From the bottom up; the rooms of one line do not know each other. A longer name goes before a shorter one."""

LEVELS = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def _name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def _imported(module: str, text: str, is_package: bool) -> Iterator[str]:
    """The modules of the package that a module's text imports, by their names inside it."""
    folder = ["fastnn", *module.split(".")][: None if is_package else -1] if module != "__init__" else ["fastnn"]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "fastnn":
                yield _module(name[1:])


def _module(parts: list[str]) -> str:
    """The longest beginning of a dotted name that is a module."""
    for end in range(len(parts), 0, -1):
        if (name := ".".join(parts[:end])) in MODULES or name == "_core":
            return name
    return "__init__"


def _room(module: str) -> str:
    """The longest beginning of a module's name that stands in the order."""
    parts = module.split(".")
    return next(name for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in LEVELS)


def _imports(module: str) -> set[str]:
    file = MODULES[module]
    return set(_imported(module, file.read_text(encoding="utf-8"), file.name == "__init__.py")) - {module}


def _circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Modules that stand in a circle or import one: what is left when those without imports go, again and again."""
    left = {module: set(names) for module, names in imports.items()}
    while ready := [module for module, names in left.items() if not names & left.keys()]:
        for module in ready:
            del left[module]
    return sorted([module, *sorted(names & left.keys())] for module, names in left.items())


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    room = _room(module)
    others = {name for name in _imports(module) if _room(name) != room}
    assert [name for name in sorted(others) if LEVELS[_room(name)] >= LEVELS[room]] == []


def test_no_circles() -> None:
    assert _circles({module: _imports(module) for module in MODULES}) == []


def test_what_the_order_names_is_there() -> None:
    assert [room for room in LEVELS if room not in MODULES and room != "_core"] == []


def test_imports_are_found() -> None:
    """In every form that Python has, wherever they stand."""
    text = """
import fastnn.graph as graph
from fastnn.nn import functional
from ..plan import Plan
from .. import _core, settings
if TYPE_CHECKING:
    from . import shape
def late():
    from ..train.trainer import Trainer
    import numpy
"""
    found = ["_core", "graph", "nn.functional", "ops.shape", "plan", "settings", "train.trainer"]
    assert sorted(_imported("ops.linear", text, False)) == found
    assert list(_imported("ops", "from .shape import channels_last", True)) == ["ops.shape"]
    assert list(_imported("__init__", "from .graph import Tensor", True)) == ["graph"]


def test_circles_are_found() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [
        ["a", "b"],
        ["b", "c"],
        ["c", "a"],
        ["d", "a"],
    ]
    assert _circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
