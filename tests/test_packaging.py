"""What an installed fastnn is: small, quick to import, needing NumPy and threadpoolctl alone; docstring examples are true."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from subprocesses import output_of

import fastnn as fnn
import fastnn.data
import fastnn.models
import fastnn.reference
import fastnn.train
from fastnn import _core, nn

PACKAGE, ROOT = Path(fnn.__file__).parent, Path(__file__).parents[1]
RUN_ONLY_BY_HAND = {"fastnn.__main__"}  # importing it is running it


def _modules() -> list[str]:
    found = [module.name for module in pkgutil.walk_packages([str(PACKAGE)], "fastnn.")]
    return ["fastnn", *sorted(set(found) - RUN_ONLY_BY_HAND)]


@pytest.mark.parametrize("name", _modules())
def test_docstring_examples(name: str) -> None:
    module = importlib.import_module(name)
    names = {"np": np, "fnn": fnn, "nn": nn, "F": nn.functional, **vars(module)}
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, extraglobs=names, optionflags=flags)
    assert result.failed == 0


@pytest.mark.parametrize("module", [fnn, nn, nn.functional, fnn.optim, fnn.train, fnn.data, fnn.models, fnn.reference])
def test_everything_public_has_an_example(module: ModuleType) -> None:
    public = {name: getattr(module, name) for name in module.__all__}
    documented = {name: value for name, value in public.items() if inspect.isclass(value) or inspect.isfunction(value)}
    assert documented
    assert [name for name, value in documented.items() if ">>>" not in (value.__doc__ or "")] == []


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", fnn.__version__)
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == fnn.__version__


def _installed() -> importlib.metadata.Distribution | None:
    """The distribution, if what is imported was installed and not put on the path."""
    try:
        distribution = importlib.metadata.distribution("fastnn")
    except importlib.metadata.PackageNotFoundError:
        return None
    return distribution if Path(str(distribution.locate_file("fastnn"))).resolve() == PACKAGE.resolve() else None


def test_metadata() -> None:
    distribution = _installed()
    if distribution is None:
        pytest.skip("fastnn is on the path, not installed; it is in CI")
    assert distribution.version == fnn.__version__
    needed = [r for r in distribution.requires or [] if "extra ==" not in r]
    assert sorted(re.split(r"[^A-Za-z0-9_.-]", r)[0] for r in needed) == ["numpy", "threadpoolctl"]
    assert distribution.metadata["License-Expression"] == "BSD-3-Clause"
    names = [str(file) for file in distribution.files or []]
    assert any(name.endswith("py.typed") for name in names)
    assert any(name.endswith("_core.pyi") for name in names)
    assert not any(name.endswith((".pyx", ".pxi", ".c", ".h", ".def")) for name in names)


def test_public_names_exist() -> None:
    for module in (fnn, nn, nn.functional, fnn.optim):
        for name in getattr(module, "__all__", []):
            assert hasattr(module, name), f"{module.__name__}.{name}"
            assert name in dir(module), f"{module.__name__}.{name}"


def test_what_is_imported_late_is_there() -> None:
    code = "from fastnn import optim; print('CosineDecay' in dir(optim), optim.schedule.StepDecay is optim.StepDecay)"
    assert output_of(code) == "True True"
    assert (
        output_of("import fastnn; print('Trainer' in dir(fastnn), fastnn.Trainer is fastnn.train.Trainer)")
        == "True True"
    )
    for module in (fnn, fnn.optim):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = module.nothing


def test_import_brings_nothing_but_numpy_and_threadpoolctl() -> None:
    code = """
        import sys, numpy, threadpoolctl
        before = set(sys.modules)
        import fastnn
        cython = {name for name in sys.modules if name.startswith("_cython_")}  # made by the compiled module itself
        outside = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
        print(*sorted(outside - {"fastnn", "numpy", "threadpoolctl", "cython_runtime"} - cython))
    """
    assert output_of(code) == ""


def test_import_time() -> None:
    """Under 60 ms on top of NumPy: the best of several, since others may use the machine."""
    code = """
        import time, numpy
        start = time.perf_counter()
        import fastnn
        print(time.perf_counter() - start)
    """
    assert any(float(output_of(code, PYTHONDONTWRITEBYTECODE="")) < 0.060 for _ in range(25))


def test_the_stub_names_what_the_module_has() -> None:
    stub = PACKAGE / "_core.pyi"
    text = stub.read_text(encoding="utf-8")
    stubbed = set(re.findall(r"^(?:def |class )(\w+)", text, re.M)) | set(re.findall(r"^(\w+): Final", text, re.M))
    public = {name for name in vars(_core) if not name.startswith("_") and type(vars(_core)[name]).__name__ != "module"}
    assert stubbed == public


def test_the_readme_example_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert blocks
    for block in blocks:
        output_of(block)
