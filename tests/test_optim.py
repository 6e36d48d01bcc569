"""Optimizers: trajectories against the reference, groups, learning rates, penalties, settings that make no sense."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fastnn import nn, optim, reference
from fastnn.trace import Compiled
from fastnn.variable import Array

KERNELS = {"penalty_gradient", "rmsprop_step", "adagrad_step"}

UNIT = 2.0**-24
SHAPES = [(5, 3, 3, 2), (37,), (7, 11), (1,), (2, 1031)]

CASES: list[tuple[str, type[optim.Optimizer], Callable[..., Any], dict[str, Any]]] = [
    ("sgd", optim.SGD, reference.sgd_step, {}),
    ("momentum", optim.SGD, reference.sgd_step, {"momentum": 0.9}),
    ("dampening", optim.SGD, reference.sgd_step, {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1}),
    ("nesterov", optim.SGD, reference.sgd_step, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("sgd_up", optim.SGD, reference.sgd_step, {"momentum": 0.5, "maximize": True}),
    ("adam", optim.Adam, reference.adam_step, {}),
    ("adam_decay", optim.Adam, reference.adam_step, {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}),
    ("amsgrad", optim.Adam, reference.adam_step, {"amsgrad": True, "betas": (0.5, 0.6)}),
    ("adamw", optim.AdamW, reference.adamw_step, {}),
    ("rmsprop", optim.RMSprop, reference.rmsprop_step, {"alpha": 0.9}),
    ("rmsprop_centered", optim.RMSprop, reference.rmsprop_step, {"alpha": 0.9, "centered": True, "weight_decay": 0.1}),
    ("rmsprop_momentum", optim.RMSprop, reference.rmsprop_step, {"alpha": 0.8, "momentum": 0.7, "maximize": True}),
    (
        "rmsprop_both",
        optim.RMSprop,
        reference.rmsprop_step,
        {"alpha": 0.9, "momentum": 0.5, "centered": True, "eps": 1e-2},
    ),
    ("adagrad", optim.Adagrad, reference.adagrad_step, {}),
    (
        "adagrad_all",
        optim.Adagrad,
        reference.adagrad_step,
        {"lr_decay": 0.1, "weight_decay": 0.2, "initial_accumulator_value": 0.5, "eps": 1e-3, "maximize": True},
    ),
    ("adamw_up", optim.AdamW, reference.adamw_step, {"weight_decay": 0.2, "amsgrad": True, "maximize": True}),
]


def make_step(optimizer: optim.Optimizer, parameters: Sequence[nn.Parameter]) -> Callable[[Sequence[Array]], Compiled]:
    """A function that takes the gradients and makes one step of the optimizer."""

    def build(graph: Any, *gradients: Any) -> list[Any]:
        optimizer.record(graph, dict(zip(parameters, gradients, strict=True)))
        return []

    compiled = Compiled(build)

    def step(gradients: Sequence[Array]) -> Compiled:
        compiled(*gradients, runtime=optimizer.runtime())
        optimizer.steps += 1
        return compiled

    return step


def make_parameters(rng: np.random.Generator) -> list[nn.Parameter]:
    return [nn.Parameter(rng.standard_normal(shape)) for shape in SHAPES]


def make_gradients(rng: np.random.Generator) -> list[Array]:
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


@pytest.mark.parametrize(("kind", "step", "settings"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_follows_the_reference(
    kind: Any, step: Any, settings: dict[str, Any], isa: str, threads: int, rng: np.random.Generator
) -> None:
    """Each step adds at most 16 roundings of the parameter and of the step's length."""
    parameters, lr, steps = make_parameters(rng), 0.05, 6
    expected = [np.array(p.data, np.float64) for p in parameters]
    states: list[Any] = [None] * len(parameters)
    length = np.zeros(len(parameters))
    ours = make_step(kind(parameters, lr=lr, **settings), parameters)
    for _ in range(steps):
        gradients = make_gradients(rng)
        ours(gradients)
        for i, gradient in enumerate(gradients):
            before = expected[i]
            expected[i], states[i] = step(before, gradient.astype(np.float64), states[i], lr, **settings)
            length[i] = max(
                length[i], np.abs(before).max() + lr * np.abs(gradient).max() + np.abs(expected[i] - before).max()
            )
    for parameter, value, scale in zip(parameters, expected, length, strict=True):
        assert np.abs(parameter.data - value).max() <= steps * 16 * UNIT * scale


def test_sgd_is_exact_on_small_numbers(isa: str, threads: int, rng: np.random.Generator) -> None:
    """With settings that are powers of two, four steps on small integers have no rounding at all."""
    settings = {"momentum": 0.5, "dampening": 0.5, "weight_decay": 0.25}
    parameters = [nn.Parameter(rng.integers(-8, 9, shape)) for shape in SHAPES]
    expected = [np.array(p.data, np.float64) for p in parameters]
    states: list[Any] = [None] * len(parameters)
    ours = make_step(optim.SGD(parameters, lr=0.5, **settings), parameters)
    for _ in range(4):
        gradients = [rng.integers(-8, 9, shape).astype(np.float32) for shape in SHAPES]
        ours(gradients)
        for i, gradient in enumerate(gradients):
            expected[i], states[i] = reference.sgd_step(
                expected[i], gradient.astype(np.float64), states[i], 0.5, **settings
            )
    for parameter, value in zip(parameters, expected, strict=True):
        assert np.array_equal(parameter.data, value)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad])
def test_bits_do_not_depend_on_threads(kind: Any, isa: str, same_bits: Any) -> None:
    def run() -> list[Array]:
        rng = np.random.default_rng(3)
        parameters = make_parameters(rng)
        step = make_step(kind(parameters, lr=0.1, weight_decay=0.01), parameters)
        for _ in range(3):
            step(make_gradients(rng))
        return [np.array(p.data) for p in parameters]

    same_bits(run)


def test_groups_have_their_own_settings(rng: np.random.Generator) -> None:
    a, b = (nn.Parameter(np.ones((3, 2))) for _ in range(2))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.25, "weight_decay": 1.0}], lr=0.5)
    make_step(optimizer, [a, b])([np.ones((3, 2)), np.ones((3, 2))])
    assert np.array_equal(a.data, np.full((3, 2), 0.5)) and np.array_equal(b.data, np.full((3, 2), 0.5))
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]


def test_learning_rate_changes_without_compiling() -> None:
    a = nn.Parameter(np.zeros(3))
    optimizer = optim.SGD([a], lr=1.0)
    step = make_step(optimizer, [a])
    compiled = step([np.ones(3)])
    plans = list(compiled._plans.values())
    optimizer.param_groups[0]["lr"] = 0.5
    step([np.ones(3)])
    assert np.array_equal(a.data, [-1.5] * 3)
    assert list(compiled._plans.values()) == plans and len(plans) == len(compiled._found) == 1


def test_other_settings_count_from_the_next_step_on() -> None:
    a = nn.Parameter(np.zeros(3))
    optimizer = optim.SGD([a], lr=1.0)
    step = make_step(optimizer, [a])
    step([np.ones(3)])
    optimizer.param_groups[0]["weight_decay"] = 0.5
    step([np.zeros(3)])
    assert np.array_equal(a.data, [-0.5] * 3)
    optimizer.param_groups[0]["momentum"] = 0.5
    step([np.ones(3)])
    step([np.zeros(3)])
    assert optimizer.state[a]["momentum_buffer"].shape == (3,)


def test_schedules_are_asked_at_each_step() -> None:
    asked: list[int] = []

    def schedule(step: int) -> float:
        asked.append(step)
        return [1.0, 0.5, float("nan")][step]

    a = nn.Parameter(np.zeros(2))
    step = make_step(optim.SGD([a], lr=schedule), [a])
    step([np.ones(2)])
    step([np.ones(2)])
    assert np.array_equal(a.data, [-1.5] * 2) and asked == [0, 1]
    with pytest.raises(ValueError, match=r"^SGD: lr \(of the schedule of group 0, at step 2\) must be finite, got nan"):
        step([np.ones(2)])
    assert np.array_equal(a.data, [-1.5] * 2)


@pytest.mark.parametrize("maximize", [False, True])
def test_penalties_are_added_to_the_gradient(isa: str, threads: int, maximize: bool, rng: np.random.Generator) -> None:
    values = [rng.integers(-3, 4, shape) for shape in SHAPES]
    gradients = [rng.integers(-3, 4, shape).astype(np.float32) for shape in SHAPES]
    parameters = [nn.Parameter(value) for value in values]
    groups = [{"params": parameters[:3], "l1": 0.25, "l2": 0.125}, {"params": parameters[3:], "l1": 0.5}]
    make_step(optim.SGD(groups, lr=0.5, maximize=maximize), parameters)(gradients)
    for i, (parameter, value, gradient) in enumerate(zip(parameters, values, gradients, strict=True)):
        penalty = 0.25 * np.sign(value) + 0.25 * value if i < 3 else 0.5 * np.sign(value)
        expected = value + 0.5 * (gradient - penalty) if maximize else value - 0.5 * (gradient + penalty)
        assert np.array_equal(parameter.data, expected)


def test_parameters_without_gradient_are_left_alone() -> None:
    a, b = nn.Parameter(np.ones(3)), nn.Parameter(np.ones(3))
    optimizer = optim.SGD([a, b], lr=1.0, weight_decay=0.5)
    compiled = Compiled(lambda graph, gradient: optimizer.record(graph, {a: gradient}) or [])
    compiled(np.ones(3), runtime=optimizer.runtime())
    assert np.array_equal(a.data, [-0.5] * 3) and np.array_equal(b.data, np.ones(3))


NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optim.SGD(lr=NAN), ValueError, "^SGD: lr must be finite, got nan"),
        (lambda: optim.SGD(lr=-0.1), ValueError, "lr must be at least 0, got -0.1"),
        (lambda: optim.SGD(lr="fast"), TypeError, "lr must be a number, not str"),
        (lambda: optim.SGD(lr=math.inf), ValueError, "lr must be finite"),
        (lambda: optim.SGD(momentum=-1), ValueError, "momentum must be at least 0"),
        (lambda: optim.SGD(weight_decay=NAN), ValueError, "weight_decay must be finite"),
        (lambda: optim.SGD(dampening=NAN), ValueError, "dampening must be finite"),
        (lambda: optim.SGD(nesterov=True), ValueError, "nesterov needs momentum above 0"),
        (lambda: optim.SGD(momentum=0.9, dampening=0.1, nesterov=True), ValueError, "nesterov needs"),
        (lambda: optim.SGD(nesterov=1), TypeError, "nesterov must be True or False"),
        (lambda: optim.Adam(lr=NAN), ValueError, "lr must be finite"),
        (lambda: optim.Adam(betas=(1.0, 0.9)), ValueError, r"betas\[0\] must lie in \[0, 1\)"),
        (lambda: optim.Adam(betas=(0.9, NAN)), ValueError, r"betas\[1\] must be finite"),
        (lambda: optim.Adam(betas=0.9), TypeError, "betas must be a pair"),
        (lambda: optim.AdamW(eps=-1e-8), ValueError, "eps must be at least 0"),
        (lambda: optim.AdamW(weight_decay=-1), ValueError, "weight_decay must be at least 0"),
        (lambda: optim.RMSprop(alpha=1.0), ValueError, r"alpha must lie in \[0, 1\)"),
        (lambda: optim.RMSprop(centered=0), TypeError, "centered must be True or False"),
        (lambda: optim.Adagrad(lr_decay=-1), ValueError, "lr_decay must be at least 0"),
        (lambda: optim.Adagrad(initial_accumulator_value=NAN), ValueError, "initial_accumulator_value must be finite"),
        (lambda: optim.SGD([]), ValueError, "empty list of parameters"),
        (lambda: optim.SGD([{"lr": 1}]), TypeError, "a parameter group is a dict with 'params'"),
        (lambda: optim.SGD([{"params": []}, nn.Parameter([1.0])]), TypeError, "a parameter group is a dict with 'params'"),
        (lambda: optim.SGD(lr=1).add_param_group([nn.Parameter([1.0])]), TypeError, "a parameter group is a dict"),
        (lambda: optim.SGD(nn.Parameter([1.0])), TypeError, "iterable of Parameters"),
        (lambda: optim.SGD(nn.Linear(2, 3)), TypeError, r"not Linear; pass model.parameters\(\)"),
        (lambda: optim.SGD([np.ones(3)]), TypeError, "works on Parameters, not on ndarray"),
        (lambda: optim.SGD([nn.Buffer([1.0])]), TypeError, "works on Parameters, not on Buffer"),
        (lambda: optim.SGD([nn.Parameter([1.0])] * 2), ValueError, "given to the optimizer twice"),
        (lambda: optim.SGD([{"params": [nn.Parameter([1.0])], "l1": -1}]), ValueError, "l1 must be at least 0"),
        (lambda: optim.SGD([{"params": [nn.Parameter([1.0])], "speed": 1}]), ValueError, r"no settings \['speed'\]"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_wrong_assignments_change_nothing() -> None:
    group = optim.SGD(lr=0.5, momentum=0.9, nesterov=True).param_groups[0]
    for name, value in {"lr": NAN, "momentum": 0.0, "dampening": 0.5}.items():
        before = dict(group)
        with pytest.raises(ValueError):
            group[name] = value
        assert dict(group) == before
    with pytest.raises(KeyError, match="no setting 'speed'"):
        group["speed"] = 1
    with pytest.raises(TypeError, match="cannot be deleted"):
        del group["lr"]


def test_defaults_are_pytorchs() -> None:
    assert optim.SGD().defaults == {
        "lr": 1e-3, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False, "maximize": False, "l1": 0, "l2": 0,
    }  # fmt: skip
    adam = {
        "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "maximize": False, "l1": 0,
        "l2": 0,
    }  # fmt: skip
    assert optim.Adam().defaults == adam
    assert optim.AdamW().defaults == {**adam, "weight_decay": 1e-2}
    assert optim.RMSprop().defaults == {
        "lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0, "momentum": 0, "centered": False, "maximize": False,
        "l1": 0, "l2": 0,
    }  # fmt: skip
    assert optim.Adagrad().defaults == {
        "lr": 1e-2, "lr_decay": 0, "weight_decay": 0, "initial_accumulator_value": 0, "eps": 1e-10, "maximize": False,
        "l1": 0, "l2": 0,
    }  # fmt: skip
    assert "momentum: 0.9" in repr(optim.SGD(momentum=0.9))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (optim.SGD, {"momentum": 0.9}), (optim.Adam, {"amsgrad": True}), (optim.AdamW, {}),
        (optim.RMSprop, {"momentum": 0.9, "centered": True}), (optim.Adagrad, {"lr_decay": 0.5}),
    ],
)  # fmt: skip
def test_state_goes_on_where_it_was(kind: Any, settings: dict[str, Any], rng: np.random.Generator) -> None:
    gradients = [make_gradients(rng) for _ in range(5)]
    ours = make_parameters(rng)
    start = [np.array(p.data) for p in ours]
    first = kind(ours, lr=0.1, **settings)
    step = make_step(first, ours)
    for g in gradients[:3]:
        step(g)
    saved, values = first.state_dict(), [np.array(p.data) for p in ours]
    for g in gradients[3:]:
        step(g)
    others = [nn.Parameter(value) for value in values]
    second = kind(others, lr=0.3, **settings)
    second.load_state_dict(saved)
    assert second.param_groups[0]["lr"] == 0.1 and second.steps == 3
    step = make_step(second, others)
    for g in gradients[3:]:
        step(g)
    for a, b, c in zip(ours, others, start, strict=True):
        assert np.array_equal(a.data, b.data) and not np.array_equal(a.data, c)


def test_state_that_does_not_fit_changes_nothing(rng: np.random.Generator) -> None:
    parameters = make_parameters(rng)
    optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9)
    make_step(optimizer, parameters)(make_gradients(rng))
    before = optimizer.state_dict()
    bad = optimizer.state_dict()
    bad["state"][1]["momentum_buffer"] = np.zeros(36)
    with pytest.raises(ValueError, match=r"momentum_buffer of shape \(36,\).*parameter of shape \(37,\)"):
        optimizer.load_state_dict(bad)
    bad = optimizer.state_dict()
    bad["param_groups"][0]["lr"] = NAN
    with pytest.raises(ValueError, match="SGD: lr must be finite"):
        optimizer.load_state_dict(bad)
    bad = optimizer.state_dict()
    bad["param_groups"][0]["params"] = [0, 1]
    with pytest.raises(ValueError, match="groups of"):
        optimizer.load_state_dict(bad)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"] and after["steps"] == before["steps"]
    for i, state in before["state"].items():
        assert np.array_equal(state["momentum_buffer"], after["state"][i]["momentum_buffer"])


ADAM_STATE = {"exp_avg": np.ones(3), "exp_avg_sq": np.ones(3)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"state": {0: {"exp_avg": np.ones(3)}}}, ValueError, r"a state of \['exp_avg'\] does not fit Adam"),
        ({"state": {0: {"momentum_buffer": np.ones(3)}}}, ValueError, "does not fit Adam"),
        ({"state": {1: ADAM_STATE}}, ValueError, r"state of parameters \[1\], in no group"),
        ({"state": "none"}, TypeError, "a dict, not a str"),
        ({"state": {0: [1]}}, TypeError, "a dict, not a list"),
        ({"steps": -1}, ValueError, "steps must lie in 0"),
        ({"steps": 2**64}, ValueError, "steps must lie in 0"),
        ({"steps": 1.5}, TypeError, "steps must be an integer"),
        ({"param_groups": [{"lr": 0.5}]}, ValueError, "there is no 'params'"),
        ({"param_groups": [3]}, TypeError, "a dict, not a int"),
    ],
)
def test_states_of_another_make_change_nothing(change: dict[str, Any], error: type[Exception], message: str) -> None:
    optimizer = optim.Adam([nn.Parameter(np.zeros(3))], lr=0.1)
    good = {"state": {0: ADAM_STATE}, "param_groups": [{"lr": 0.5, "params": [0]}], "steps": 3}
    with pytest.raises(error, match=message):
        optimizer.load_state_dict({**good, **change})
    assert optimizer.steps == 0 and not optimizer.state and optimizer.learning_rate() == 0.1
    for name in ("state", "param_groups"):
        with pytest.raises(ValueError, match=f"there is no '{name}'"):
            optimizer.load_state_dict({key: value for key, value in good.items() if key != name})
    with pytest.raises(TypeError, match="a dict, not a NoneType"):
        optimizer.load_state_dict(None)  # type: ignore[arg-type]
    optimizer.load_state_dict(good)
    assert optimizer.steps == 3 and optimizer.learning_rate() == 0.5


def test_a_schedule_survives_loading() -> None:
    parameters = [nn.Parameter(np.zeros(2))]
    schedule = optim.CosineDecay(1.0, total=4)
    first, second = optim.SGD(parameters, lr=schedule), optim.SGD(parameters, lr=schedule)
    step = make_step(first, parameters)
    step([np.ones(2)])
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["lr"] is schedule and second.learning_rate() == schedule(1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.CosineDecay(NAN, 10), lambda: optim.CosineDecay(1.0, 0), lambda: optim.CosineDecay(1.0, 5, warmup=5),
        lambda: optim.StepDecay(1.0, 0), lambda: optim.StepDecay(-1.0, 1), lambda: optim.MultiStepDecay(1.0, (1, -1)),
        lambda: optim.ExponentialDecay(1.0, NAN), lambda: optim.OneCycle(1.0, 1), lambda: optim.OneCycle(1.0, 9, rise=1.5),
    ],
)  # fmt: skip
def test_wrong_schedules_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError):
        make()


def test_cosine_decay_stays_at_its_end() -> None:
    schedule = optim.CosineDecay(2.0, total=10, warmup=4, final=0.5)
    rates = [schedule(step) for step in range(14)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0] and rates[4] == 2.0
    assert all(a > b for a, b in pairwise(rates[4:11])) and rates[10:] == [0.5] * 4


def test_one_cycle_that_only_rises() -> None:
    schedule = optim.OneCycle(1.0, total=5, rise=1.0)
    rates = [schedule(step) for step in range(5)]
    assert all(a < b for a, b in pairwise(rates)) and rates == pytest.approx(
        [0.04, 0.18059, 0.52, 0.85941, 1.0], abs=1e-5
    )
    assert schedule(5) == schedule(9) == 1 / 25 / 1e4
