"""What surrounds a training step against PyTorch: NLLLoss, RReLU, instance norm's statistics, clipping, averages."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_agreement import flip, sizes

import fastnn as fnn
from fastnn import nn, optim, reference

CONFIGURATIONS = range(200)
RTOL = 3e-5


def seeded(name: str, number: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), number])


def assert_close(actual: Any, expected: Any, what: str) -> None:
    """Within RTOL of each value or of the largest one."""
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, PyTorch has {expected.shape}"
    largest = np.abs(expected).max() if expected.size else 0.0
    np.testing.assert_allclose(actual, expected, rtol=RTOL, atol=RTOL * largest + 1e-7, err_msg=what)


def test_nll_loss() -> None:
    for number in CONFIGURATIONS:
        rng = seeded("nll", number)
        shape = tuple(sizes(rng, int(rng.integers(1, 5)), 1, 9))
        classes = shape[0] if len(shape) == 1 else shape[1]
        target = rng.integers(0, classes, () if len(shape) == 1 else (shape[0], *shape[2:]))
        ignore = int(rng.integers(0, classes)) if flip(rng) else -100
        weight = rng.uniform(0.2, 2, classes).astype(np.float32) if flip(rng) else None
        reduction = str(rng.choice(["mean", "sum", "none"]))
        if (target == ignore).all() and reduction == "mean":
            continue
        what = f"{number}: {shape} {reduction} ignore {ignore}"
        ours = nn.NLLLoss(weight, ignore_index=ignore, reduction=reduction)
        wide = None if weight is None else torch.tensor(weight.astype(np.float64))
        theirs = torch.nn.NLLLoss(wide, ignore_index=ignore, reduction=reduction)
        if wide is not None:
            assert ours.load_state_dict(theirs.state_dict()) == ([], [])
        x = rng.standard_normal(shape).astype(np.float32)
        tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
        for training in (True, False):
            ours.train(training)
            theirs.train(training)
            tensor.grad = None
            expected = theirs(tensor, torch.tensor(target))
            y, pullback = fnn.vjp(lambda t, ours=ours, target=target: ours(t, target), x)
            assert_close(y, expected.detach().numpy(), what)
            dy = rng.standard_normal(y.shape)
            expected.backward(torch.tensor(dy))
            assert_close(pullback(dy)[0], tensor.grad.numpy(), f"{what}: gradient")


def test_rrelu() -> None:
    """Inference; and training with PyTorch's formula on the slopes that we draw, as the two draw others."""
    for number in CONFIGURATIONS:
        rng = seeded("rrelu", number)
        shape = tuple(sizes(rng, int(rng.integers(1, 5)), 1, 9))
        low = float(rng.uniform(-0.3, 0.3))
        high = low + float(rng.uniform(0, 0.5))
        ours, theirs = nn.RReLU(low, high).eval(), torch.nn.RReLU(low, high).eval()
        assert ours.load_state_dict(theirs.state_dict()) == ([], [])
        x, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
        expected = theirs(tensor)
        expected.backward(torch.tensor(dy.astype(np.float64)))
        y, pullback = fnn.vjp(ours, x)
        assert_close(y, expected.detach().numpy(), f"{number}: output")
        assert_close(pullback(dy)[0], tensor.grad.numpy(), f"{number}: gradient")
        fnn.manual_seed(number)
        y, pullback = fnn.vjp(ours.train(), x)
        slopes = torch.tensor(reference.rrelu_slopes(shape, low, high, seed=number, layer=ours.layer, step=1))
        tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
        expected = torch.where(tensor > 0, tensor, slopes * tensor)
        expected.backward(torch.tensor(dy.astype(np.float64)))
        assert_close(y, expected.detach().numpy(), f"{number}: training")
        assert_close(pullback(dy)[0], tensor.grad.numpy(), f"{number}: gradient in training")


@pytest.mark.parametrize("axes", [1, 2])
def test_instance_norm_statistics(axes: int) -> None:
    for number in CONFIGURATIONS:
        rng = seeded(f"instance norm {axes}", number)
        shape = (*sizes(rng, 2), *sizes(rng, axes, 6, 12))
        options = {
            "affine": flip(rng), "track_running_stats": True, "momentum": float(rng.uniform(0, 1)),
            "eps": float(rng.choice([1e-5, 1e-3])), "bias": flip(rng),
        }  # fmt: skip
        theirs = getattr(torch.nn, f"InstanceNorm{axes}d")(shape[1], **options).double()
        ours = getattr(nn, f"InstanceNorm{axes}d")(shape[1], **options)
        for tensor in theirs.state_dict().values():
            if tensor.is_floating_point():
                values = np.abs(rng.standard_normal(tuple(tensor.shape)).astype(np.float32)) + 0.5
                tensor.copy_(torch.tensor(values))
        assert ours.load_state_dict(theirs.state_dict()) == ([], [])
        x = (2 + rng.standard_normal(shape)).astype(np.float32)
        for training in (True, False):
            what = f"{number}: {options} on {shape}, training {training}"
            theirs.train(training)
            ours.train(training)
            tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
            theirs.zero_grad()
            expected = theirs(tensor)
            y, pullback = fnn.vjp(ours, x)
            assert_close(y, expected.detach().numpy(), f"{what}: output")
            for key, value in theirs.state_dict().items():
                assert_close(ours.state_dict()[key], value.numpy(), f"{what}: {key}")
            dy = rng.standard_normal(shape).astype(np.float32)
            expected.backward(torch.tensor(dy.astype(np.float64)))
            dx = tensor.grad.numpy()
            error = np.abs(pullback(dy)[0] - dx).max()
            assert error <= 3e-4 * np.abs(dy).max(), f"{what}: gradient of the input, {error}"
            if options["affine"]:
                _, gradients = fnn.value_and_grad(ours, lambda result, weights: (result * weights).sum())(x, dy)
                for key, parameter in theirs.named_parameters():
                    terms = 2.0**-20 * float(np.abs(dy).sum())
                    assert np.abs(gradients[key] - parameter.grad.numpy()).max() <= terms, f"{what}: {key}"
            ours.load_state_dict(theirs.state_dict())


def networks(rng: np.random.Generator) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """The same small net in float64 and ours, and a batch."""
    widths = sizes(rng, 4, 2, 40)

    def make(module: Any) -> Any:
        layers = [module.Linear(widths[0], widths[1]), module.Tanh(), module.Linear(widths[1], widths[2])]
        return module.Sequential(*layers, module.Tanh(), module.Linear(widths[2], widths[3]))

    theirs, ours = make(torch.nn).double(), make(nn)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    theirs.load_state_dict({k: torch.tensor(v.astype(np.float64)) for k, v in ours.state_dict().items()})
    x = 3 * rng.standard_normal((8, widths[0])).astype(np.float32)
    return theirs, ours, x, rng.integers(0, widths[3], 8)


@pytest.mark.parametrize("kind", ["norm", "value"])
def test_clipping_and_the_step_behind_it(kind: str) -> None:
    """torch.nn.utils.clip_grad_norm_ or clip_grad_value_, then three steps of SGD with momentum."""
    for number in CONFIGURATIONS:
        rng = seeded(f"clip {kind}", number)
        theirs, ours, x, y = networks(rng)
        limit = float(10 ** rng.uniform(-3, 1))
        norm_type = float(rng.choice([1.0, 2.0, np.inf]))
        options = {"clip_norm": limit, "norm_type": norm_type} if kind == "norm" else {"clip_value": limit}
        trainer = fnn.Trainer(ours, nn.CrossEntropyLoss(), optim.SGD(lr=0.1, momentum=0.9), **options)
        peer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            peer.zero_grad()
            loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x.astype(np.float64))), torch.tensor(y))
            loss.backward()
            norm = None
            if kind == "norm":
                norm = float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit, norm_type))
            else:
                torch.nn.utils.clip_grad_value_(theirs.parameters(), limit)
            peer.step()
            assert abs(trainer.step(x, y) - loss.item()) <= RTOL * loss.item()
            if norm is not None:
                assert abs(trainer.gradient_norm - norm) <= 1e-4 * norm, number
        for name, value in theirs.state_dict().items():
            error = np.abs(ours.state_dict()[name] - value.numpy()).max()
            assert error <= 1e-4 * np.abs(value.numpy()).max(), f"{number}: {name}"


def test_moving_average() -> None:
    """torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn, updated after each of four steps."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    for number in CONFIGURATIONS:
        rng = seeded("average", number)
        theirs, ours, x, y = networks(rng)
        decay = float(rng.uniform(0, 0.999))
        average = optim.ExponentialMovingAverage(decay)
        trainer = fnn.Trainer(ours, nn.CrossEntropyLoss(), optim.SGD(lr=0.1), average=average)
        peer = torch.optim.SGD(theirs.parameters(), lr=0.1)
        averaged = AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(decay))
        for _ in range(4):
            peer.zero_grad()
            torch.nn.functional.cross_entropy(theirs(torch.tensor(x.astype(np.float64))), torch.tensor(y)).backward()
            peer.step()
            averaged.update_parameters(theirs)
            trainer.step(x, y)
        outputs = averaged.module(torch.tensor(x.astype(np.float64))).detach().numpy()
        with average.applied():
            assert_close(trainer.predict(x), outputs, f"{number}: outputs of the averages")
        for (name, parameter), mine in zip(averaged.module.named_parameters(), ours.parameters(), strict=True):
            error = np.abs(average[mine] - parameter.detach().numpy()).max()
            assert error <= 1e-5 * float(parameter.detach().abs().max()), f"{number}: {name}"


@pytest.mark.parametrize("name", ["StepLR", "MultiStepLR", "ExponentialLR", "OneCycleLR", "CosineAnnealingLR"])
def test_schedules(name: str) -> None:
    for number in CONFIGURATIONS:
        rng = seeded(name, number)
        lr, gamma, total = float(rng.uniform(0.01, 1)), float(rng.uniform(0.1, 0.99)), int(rng.integers(5, 40))
        milestones = sorted({int(m) for m in rng.integers(1, 30, 3)})
        rise, start, end = float(rng.uniform(0.2, 0.8)), float(rng.uniform(2, 30)), float(rng.uniform(10, 1e4))
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
        schedulers = torch.optim.lr_scheduler
        every = int(rng.integers(1, 9))
        theirs, ours = {
            "StepLR": lambda: (schedulers.StepLR(optimizer, every, gamma), optim.StepDecay(lr, every, gamma)),
            "MultiStepLR": lambda: (
                schedulers.MultiStepLR(optimizer, milestones, gamma), optim.MultiStepDecay(lr, milestones, gamma)
            ),
            "ExponentialLR": lambda: (schedulers.ExponentialLR(optimizer, gamma), optim.ExponentialDecay(lr, gamma)),
            "OneCycleLR": lambda: (
                schedulers.OneCycleLR(
                    optimizer, lr, total_steps=total, pct_start=rise, div_factor=start, final_div_factor=end,
                    cycle_momentum=False,
                ),
                optim.OneCycle(lr, total, rise, start, end),
            ),
            "CosineAnnealingLR": lambda: (
                schedulers.CosineAnnealingLR(optimizer, total, eta_min=lr / 10),
                optim.CosineDecay(lr, total, final=lr / 10),
            ),
        }[name]()  # fmt: skip
        for step in range(total):
            expected = optimizer.param_groups[0]["lr"]
            assert abs(ours(step) - expected) <= 1e-9 * lr, f"{number}: step {step}"
            optimizer.step()
            if step < total - 1:
                theirs.step()
