"""The memory plan and what a plan says about itself: no two living storages overlap, every byte lies inside."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnn as fnn
from fastnn import _core, nn
from fastnn.memory_plan import ALIGNMENT, Reference, Storage, assign_offsets, references
from fastnn.plan import Plan, Step, _share
from fastnn.settings import current_facts, serial_below
from fastnn.trace import runtime_values
from fastnn.variable import memory_shape

LIFETIMES = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 12)), max_size=40
)  # size, first node, further nodes


def _check_places(storages: list[Storage], total: int) -> None:
    for storage in storages:
        assert storage.offset % ALIGNMENT == 0
        assert 0 <= storage.offset
        assert storage.offset + storage.size <= total
    for i, a in enumerate(storages):
        for b in storages[:i]:
            together = a.first <= b.last and b.first <= a.last
            apart = a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
            assert apart or not together or 0 in (a.size, b.size), (a, b)


@settings(max_examples=2000, deadline=None)
@given(LIFETIMES)
def test_storages_that_live_together_lie_apart(lifetimes: list[tuple[int, int, int]]) -> None:
    storages = [Storage(size, first=first, last=first + more) for size, first, more in lifetimes]
    total = assign_offsets(storages)
    _check_places(storages, total)
    aligned = [(s.size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT for s in storages]
    assert total <= sum(aligned), "no worse than one after the other"
    for position in range(45):
        living = sum(s.size for s in storages if s.first <= position <= s.last)
        assert total >= living, "no better than what lives at once"


@settings(max_examples=200, deadline=None)
@given(LIFETIMES)
def test_the_plan_does_not_depend_on_when_it_is_made(lifetimes: list[tuple[int, int, int]]) -> None:
    def places() -> list[int]:
        storages = [Storage(size, first=first, last=first + more) for size, first, more in lifetimes]
        assign_offsets(storages)
        return [s.offset for s in storages]

    assert places() == places()


def test_a_chain_of_equal_tensors_needs_two() -> None:
    storages = [Storage(640, first=i, last=i + 1) for i in range(20)]
    assert assign_offsets(storages) == 2 * 640


class Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: fnn.Tensor) -> fnn.Tensor:
        y = nn.functional.relu(self.norm(self.first(x)))
        return nn.functional.relu(self.second(y) + x)


def _models() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    chain = [
        nn.Conv2d(3, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(20, 7),
    ]
    return {
        "chain": (nn.Sequential(*chain), (4, 3, 6, 6)),
        "residual": (nn.Sequential(Residual(6), Residual(6), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 6, 9, 7)),
        "perceptron": (nn.Sequential(nn.Linear(13, 50), nn.ReLU(), nn.Linear(50, 3)), (11, 13)),
        "nothing": (nn.Sequential(), (2, 3)),
    }


def _used(plan: Plan) -> dict[int, list[int]]:
    """For every storage: the steps that touch it. Constants of steps that run at every call last to the end."""
    used: dict[int, list[int]] = {}
    for i, step in enumerate(plan.steps):
        for value in step.arguments.values():
            for reference in references(value):
                used.setdefault(id(reference.storage), []).append(i)
                if reference.storage.space == _core.CONSTANT and not step.prologue:
                    used[id(reference.storage)].append(len(plan.steps))
    return used


def test_weights_on_the_way_to_their_last_form_share_memory() -> None:
    layers = [
        layer
        for _ in range(4)
        for layer in (nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Unflatten(1, (4, 4, 4)), nn.Flatten())
    ]
    one, four = (nn.Sequential(*layers[: 4 * n], nn.Linear(64, 64)).eval().plan((5, 64)) for n in (1, 4))
    matrix = 4 * 64 * 64
    assert one.constant_bytes >= 2 * matrix
    assert four.constant_bytes < one.constant_bytes + 3 * 2 * matrix


def test_a_gradient_of_constants_alone_is_written_at_every_call() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(np.zeros(3))

        def forward(self, x: fnn.Tensor) -> fnn.Tensor:
            return x + self.shift

    gradient = fnn.value_and_grad(Shift(), lambda output, y: output.sum())
    for _ in range(3):
        value, gradients = gradient(np.ones((4, 3)), np.zeros(4))
        assert value == 12
        np.testing.assert_array_equal(gradients["shift"], [4, 4, 4])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", _models())
def test_storages_of_real_plans(name: str, training: bool, isa: str) -> None:
    model, shape = _models()[name]
    plan = (model.train() if training else model.eval()).plan(shape)
    storages: dict[int, Storage] = {}
    sizes = {_core.ARENA: plan.arena_bytes, _core.CONSTANT: plan.constant_bytes}
    for step in plan.steps:
        for value in step.arguments.values():
            for reference in references(value):
                assert isinstance(reference, Reference)
                storage = reference.storage
                assert 0 <= reference.offset <= reference.offset + reference.size <= storage.size
                storages[id(storage)] = storage
                if storage.space in sizes:
                    assert storage.offset + storage.size <= sizes[storage.space]
    used = _used(plan)
    for space in sizes:
        places = [s for s in storages.values() if s.space == space]
        for i, a in enumerate(places):
            for b in places[:i]:
                steps_a, steps_b = used[id(a)], used[id(b)]
                together = min(steps_a) <= max(steps_b) and min(steps_b) <= max(steps_a)
                apart = a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
                assert apart or not together or 0 in (a.size, b.size), (a, b)
    assert plan.peak_bytes == plan.arena_bytes + plan.constant_bytes


@pytest.mark.parametrize("name", _models())
def test_a_plan_can_be_read(name: str) -> None:
    model, shape = _models()[name]
    plan = model.eval().plan(shape)
    lines = str(plan).splitlines()
    assert f"{len(plan.steps)} steps" in lines[0]
    for step in plan.steps:
        assert any(step.kernel in line for line in lines)


def test_dropout_leaves_nothing_in_an_inference_plan() -> None:
    plain = nn.Sequential(nn.ReLU(), nn.Flatten())
    dropped = nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Dropout(0.1), nn.Flatten())
    kernels = [step.kernel for step in dropped.eval().plan((3, 4, 5, 6)).steps]
    assert kernels == [step.kernel for step in plain.eval().plan((3, 4, 5, 6)).steps]


def test_plans_are_cached_and_bounded(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    assert model.plan((3, 5)) is model.plan((3, 5))
    for rows in range(1, 60):
        x = rng.standard_normal((rows, 5)).astype(np.float32)
        assert model(x).shape == (rows, 4)


def test_a_shape_beyond_all_memory_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(1, 1))
    with pytest.raises((MemoryError, OverflowError, ValueError)):
        model.plan((2**61, 1))


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((-1, 3, 5, 5), ValueError, r"no extents below 0, got \(-1, 3, 5, 5\)"),
        ((2.5, 3, 5, 5), TypeError, "a sequence of integers"),
        (3, TypeError, "a sequence of integers"),
        ("abc", TypeError, "a sequence of integers"),
    ],
)
def test_shapes_that_are_none(shape: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nn.Conv2d(3, 3, 3).plan(shape)


def test_the_same_plan_gives_the_same_bits_again(isa: str, same_bits: object, rng: np.random.Generator) -> None:
    model, shape = _models()["residual"]
    x = rng.standard_normal(shape).astype(np.float32)
    model.eval()
    assert callable(same_bits)
    first = same_bits(lambda: model(x))
    assert all(model(x).tobytes() == first.tobytes() for _ in range(3))


# ---- bytes


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["chain", "residual", "perceptron"])
def test_the_peak_is_hit_exactly(name: str, training: bool, isa: str, rng: np.random.Generator) -> None:
    """A run takes as many bytes as the plan says, later runs take none; the last byte of the arena belongs to a step."""
    model, shape = _models()[name]
    model.train(training)
    plan = model.plan(shape)
    arrays = (rng.standard_normal(memory_shape(shape)).astype(np.float32), *plan.allocate_outputs())
    values = runtime_values(plan, None)
    before = _core.memory_in_use()
    plan.program.run(arrays, values)
    assert _core.memory_in_use() - before == plan.peak_bytes
    plan.program.run(arrays, values)
    assert _core.memory_in_use() - before == plan.peak_bytes
    parts = [r.storage for step in plan.steps for value in step.arguments.values() for r in references(value)]
    assert max(s.offset + s.size for s in parts if s.space == _core.ARENA) == plan.arena_bytes


def test_a_freed_plan_gives_its_memory_back(rng: np.random.Generator) -> None:
    gc.collect()
    before = _core.memory_in_use()
    model = nn.Sequential(nn.Linear(30, 40), nn.Linear(40, 2))
    model(rng.standard_normal((50, 30)))
    assert _core.memory_in_use() > before
    del model
    gc.collect()
    assert _core.memory_in_use() == before


def test_too_much_memory_is_refused_with_the_bytes_of_each_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2048, 10))
    plan = model.plan((2, 3, 32, 32))
    assert model.plan((2, 3, 32, 32), max_memory=plan.peak_bytes) is plan
    with pytest.raises(MemoryError) as caught:
        model.plan((2, 3, 32, 32), max_memory=plan.peak_bytes - 1)
    message = str(caught.value)
    assert f"{plan.peak_bytes:,d}" in message and f"{plan.peak_bytes - 1:,d}" in message
    layers = dict(plan.layer_bytes())
    assert layers[repr(model[0])] >= 4 * 2 * 8 * 32 * 32, "at least its result"
    for layer, size in layers.items():
        assert f"{size:,d}  {layer}" in message
    assert sum(layers.values()) >= plan.peak_bytes


@pytest.mark.parametrize(
    ("limit", "error"), [(1e6, TypeError), ("1 MB", TypeError), (True, TypeError), (-1, ValueError)]
)
def test_limits_of_memory_that_are_none(limit: Any, error: type[Exception]) -> None:
    model = nn.Linear(8, 16)
    with pytest.raises(error, match="max_memory must be"):
        model.plan((1, 8), max_memory=limit)
    with pytest.raises(error, match="max_memory must be"):
        fnn.Trainer(model, nn.CrossEntropyLoss(), fnn.optim.SGD(lr=0.1), max_memory=limit)


def test_a_trainer_refuses_before_anything_changes(rng: np.random.Generator) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), fnn.optim.SGD(lr=0.1), max_memory=20_000)
    x, y = rng.standard_normal((1000, 8)), rng.integers(0, 3, 1000)
    before = model.state_dict()
    with pytest.raises(MemoryError, match=r"max_memory is 20,000"):
        trainer.step(x, y)
    with pytest.raises(MemoryError, match=r"Linear\(in_features=8"):
        trainer.fit(x, y, batch_size=1000, progress=False)
    assert trainer.steps == 0
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())
    assert np.isfinite(fnn.Trainer(model, nn.CrossEntropyLoss(), fnn.optim.SGD(lr=0.1)).step(x, y))


def test_gradients_count_for_the_layer_that_they_are_of() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    gradient = fnn.value_and_grad(model, nn.CrossEntropyLoss())
    gradient(np.ones((4, 8)), np.zeros(4, np.int64))
    (plan,) = gradient._compiled._plans.values()
    layers = {step.kernel: step.node.origin for step in plan.steps}
    assert layers["activation_backward"] == "Tanh()"
    assert layers["linear_backward_weight"].startswith("Linear(")


@pytest.mark.parametrize(
    ("works", "shared"),
    [
        ([], ""),
        ([19_999], "-"),  # less than a team is worth
        ([20_000], "+"),
        ([1_999] * 20, "-" * 20),  # each less than a barrier
        ([2_000] * 9 + [1_999] * 9, "-" * 18),
        ([2_000, 399] * 10, "+-" * 10),  # together worth a team, which the smallest leave alone
        ([2_000, 400] * 10, "+" * 19 + "-"),  # but for one between two that are shared: it has its barriers
        ([2_000, 1_999, 1_999] * 10, "+--" * 10),
        ([1_999, 20_000, 1_999], "-+-"),
        ([99_999, 100_000], "+*"),
        ([100.0, 5e6, 3e3], "-*+"),
    ],
)
def test_steps_are_shared_if_they_are_worth_a_team(works: list[float], shared: str) -> None:
    with serial_below(20_000):
        facts = current_facts()
    steps = [Step("copy", {}, work, None, 0, False, 0.0) for work in works]  # type: ignore[arg-type]
    _share(steps, facts)
    signs = {_core.ALONE: "-", _core.EVENLY: "+", _core.PIECEWISE: "*"}
    assert "".join(signs[step.sharing] for step in steps) == shared


@pytest.mark.parametrize(("nanoseconds", "shared"), [(0, True), (1e15, False)])
def test_serial_below(nanoseconds: float, shared: bool) -> None:
    """Packing of weights, which runs before all else, counts for itself; 0 shares even a step of no work at all."""
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5, 2)).eval()
    with serial_below(nanoseconds):
        steps = [*model.plan((1, 3, 3, 3)).steps, *model.plan((0, 3, 3, 3)).steps]
    assert {step.prologue for step in steps} == {True, False}
    assert all(step.serial != shared for step in steps)


def test_a_prologue_that_is_worth_a_team_does_not_share_what_follows() -> None:
    steps = nn.Conv2d(64, 256, 3).eval().plan((1, 64, 3, 3)).steps
    prologue, rest = ([step for step in steps if step.prologue == when] for when in (True, False))
    assert not all(step.serial for step in prologue)
    assert rest and all(step.serial for step in rest)
