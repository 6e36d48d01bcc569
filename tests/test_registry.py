"""Every kernel of kernels.def is claimed by a test module, and the claims are true.

A test module claims kernels with a top-level set of names, KERNELS = {"relu_forward", ...}.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ran import built_kernels, partial_modules

from fastnn import _core


def _claims(path: Path) -> set[str]:
    """The names in a module's top-level KERNELS, read without importing it."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "KERNELS" for target in targets):
            return set(ast.literal_eval(statement.value))
    return set()


CLAIMS = {path.name: _claims(path) for path in sorted(Path(__file__).parent.glob("test_*.py"))}


def test_every_kernel_is_claimed() -> None:
    unclaimed = _core.KERNELS.keys() - set().union(*CLAIMS.values())
    assert not unclaimed, f"no test module's KERNELS names {sorted(unclaimed)}"


def test_only_kernels_are_claimed() -> None:
    wrong = {name: sorted(claims - _core.KERNELS.keys()) for name, claims in CLAIMS.items()}
    assert not {name: kernels for name, kernels in wrong.items() if kernels}


def test_claimed_kernels_ran(request: pytest.FixtureRequest) -> None:
    """Runs last: each kernel claimed by a module that ran in full was in a program built in this session."""
    ran = {item.path.name for item in request.session.items} - partial_modules
    claimed = set().union(*(claims for name, claims in CLAIMS.items() if name in ran))
    assert claimed <= built_kernels, f"claimed but never run: {sorted(claimed - built_kernels)}"


def test_fields_are_well_formed() -> None:
    kinds = {"in", "in_optional", "out", "out_optional", "update", "size", "word", "real", "table"}
    for name, fields in _core.KERNELS.items():
        assert fields, name
        assert {kind for _, kind, _ in fields} <= kinds
        names = [field for field, _, _ in fields]
        assert len(set(names)) == len(names), name
        for field, kind, c_type in fields:
            pointer = kind.partition("_")[0] in ("in", "out", "update")
            assert bool(c_type) == pointer, f"{name}.{field}"


def test_facts_of_isas() -> None:
    assert "scalar" in _core.ISAS
    for facts in _core.ISAS.values():
        assert facts["lanes"] >= 1
        assert facts["gemm_columns"] % facts["lanes"] == 0
