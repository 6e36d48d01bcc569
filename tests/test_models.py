"""The nets of fastnn.models and their benchmark: shapes, sizes, state, bits over thread counts, the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import models, nn, optim, passes
from fastnn.benchmark import net_calls, nets
from fastnn.benchmark.net_calls import INFERENCE, TRAINING, Task
from fastnn.benchmark.timing import Timing
from fastnn.cli import main
from fastnn.models.blocks import convolution_and_norm, inverted_residual
from fastnn.settings import without_passes

PARAMETERS = {
    "mlp": 669_706, "lenet": 61_706, "smallcnn": 1_117_162, "resnet20": 272_474, "alexnet": 61_100_840,
    "resnet18": 11_689_512, "vgg11": 132_868_840, "mobilenetv2": 3_504_872,
}  # fmt: skip
"""As PyTorch counts them for the same nets."""

SMALL = ("mlp", "lenet", "smallcnn", "resnet20")


class Counting:
    """A namespace whose layers are counted, not made: the big nets' weights need not be drawn for their sizes."""

    def __init__(self) -> None:
        self.total = 0

    def __getattr__(self, name: str) -> Any:
        def layer(*args: Any, **kwargs: Any) -> Any:
            sizes = {
                "Conv2d": lambda c, k, s, *_, groups=1, bias=True, **__: k * (c // groups) * s * s + bias * k,
                "Linear": lambda c, k: c * k + k,
                "BatchNorm2d": lambda c: 2 * c,
            }
            if name in sizes:
                self.total += sizes[name](*args, **kwargs)
            return nn.Identity()

        return nn.Module if name == "Module" else nn.Sequential if name == "Sequential" else layer


@pytest.mark.parametrize("name", models.NETS)
def test_parameters_are_as_many_as_in_the_paper(name: str) -> None:
    namespace = Counting()
    models.NETS[name].make(namespace)
    assert namespace.total == PARAMETERS[name]


@pytest.mark.parametrize("name", SMALL)
def test_a_small_net_maps_images_to_logits(name: str) -> None:
    net = models.NETS[name]
    model = net.make(nn).eval()
    assert sum(p.data.size for p in model.parameters()) == PARAMETERS[name]
    x = np.random.default_rng(0).standard_normal((3, *net.image)).astype(np.float32)
    logits = model(x)
    assert logits.shape == (3, net.classes) and np.isfinite(logits).all()
    np.testing.assert_allclose(model(x[1:2]), logits[1:2], rtol=1e-3, atol=1e-3 * np.abs(logits).max())


@pytest.mark.parametrize("name", ("resnet18", "mobilenetv2"))
def test_a_big_net_takes_images_of_another_size(name: str) -> None:
    """Both end in global pooling: the plan for small images is checked, a run is cheap."""
    model = models.NETS[name].make(nn).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    assert np.isfinite(model(x)).all() and model(x).shape == (2, 1000)


@pytest.mark.parametrize("name", ("alexnet", "vgg11"))
def test_the_nets_for_one_size_refuse_another(name: str) -> None:
    layers = models.NETS[name].make(_Thin())
    with pytest.raises(ValueError, match="Linear"):
        layers.eval().plan((1, 3, 96, 96))


class _Thin:
    """torch.nn's names with dense layers that have one output: the plans are the nets', the weights fit any machine."""

    def __getattr__(self, name: str) -> Any:
        if name == "Linear":
            return lambda inputs, outputs: nn.Linear(inputs if inputs in (9216, 25088) else 1, 1)
        return getattr(nn, name)


@pytest.mark.parametrize("name", SMALL)
def test_bits_do_not_depend_on_threads(name: str, same_bits: Callable[..., Any]) -> None:
    net = models.NETS[name]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((9, *net.image)).astype(np.float32)
    y = rng.integers(0, net.classes, 9)
    fnn.manual_seed(0)
    model = net.make(nn)
    state = model.state_dict()
    same_bits(lambda: model.eval()(x))

    def two_steps() -> Any:
        model.load_state_dict(state)
        trainer = fnn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1, momentum=0.9), seed=5)
        losses = [trainer.step(x, y), trainer.step(x, y)]
        return np.concatenate([np.array(losses), *(value.ravel() for value in model.state_dict().values())])

    same_bits(two_steps)


# ---- the benchmark


def test_tasks_of_the_benchmark_run(tmp_path: Path) -> None:
    tasks = [Task("mlp", INFERENCE, 2, 1), Task("mlp", TRAINING, 2, 2)]
    rows = list(nets.measure(tasks, [], seconds=0.02, memory=True))
    assert [row.task for row in rows] == tasks
    for row in rows:
        assert list(row.times) == ["fastnn"] and row.ratio is None and row.best_peer is None
        assert row.peak_bytes["fastnn"] >= 4 * PARAMETERS["mlp"], "at least its weights"
        assert row.to_json()["images_per_second"]["fastnn"] > 0
    assert len(nets.lines(rows[0])) == 1 and "mlp" in nets.lines(rows[0])[0]


def test_ratios_are_against_the_best_peer() -> None:
    times = {name: Timing(t, t, t) for name, t in {"fastnn": 2.0, "torch": 6.0, "openvino": 3.0}.items()}
    row = nets.NetRow(Task("lenet", INFERENCE, 1, 1), times, {})
    assert row.best_peer == "openvino" and row.ratio == 1.5
    (line,) = nets.summary([row])
    assert "geometric mean 1.50" in line and "lenet batch 1" in line


def test_a_training_step_of_the_benchmark_learns() -> None:
    call = net_calls.make_call("fastnn", Task("mlp", TRAINING, 4, 1))
    losses = [call() for _ in range(3)]
    assert all(np.isfinite(losses)) and len(set(losses)) == 3


def test_bench_net_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    command = [
        "bench",
        "--net",
        "lenet",
        "--run",
        "inference",
        "--batch",
        "2",
        "--seconds",
        "0.01",
        "--json",
        str(file),
    ]
    assert main(command) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row["task"] == {"net": "lenet", "kind": "inference", "batch": 2, "threads": fnn.get_num_threads()}
    assert row["times"]["fastnn"]["median"] > 0
    assert "lenet" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong, message",
    [(["--net", "resnet1"], "no net 'resnet1'"), (["--net", "mlp", "--peer", "numpy"], "there are torch")],
)
def test_bench_net_refuses(wrong: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *wrong]) == 2
    assert message in capsys.readouterr().out


# ---- passes on and off


def _mobile(namespace: Any) -> nn.Module:
    """The first blocks of MobileNetV2 on small images: depthwise convolutions, ReLU6, a shortcut."""
    blocks = [inverted_residual(namespace, 8, 8, 1, 6), inverted_residual(namespace, 8, 12, 2, 6)]
    first = [*convolution_and_norm(namespace, 3, 8, 3, 2), namespace.ReLU6()]
    last = [namespace.AdaptiveAvgPool2d(1), namespace.Flatten(), namespace.Linear(12, 10)]
    return namespace.Sequential(*first, *blocks, *last)


WHOLE = {
    "lenet": (models.lenet, (1, 28, 28)),
    "resnet20": (models.resnet20, (3, 32, 32)),
    "mobile": (_mobile, (3, 32, 32)),
}


def _away_from_initial(model: nn.Module) -> None:
    """Scales, shifts and running statistics that a pass could get wrong."""
    rng = np.random.default_rng(4)
    for name, value in model.state_dict().items():
        if value.ndim == 1 and value.dtype == np.float32:
            fresh = rng.uniform(0.5, 1.5, value.shape)
            model.load_state_dict({name: fresh - 1 if name.endswith(("bias", "mean")) else fresh}, strict=False)


@pytest.mark.parametrize("left_out", [(), *((rewrite.__name__,) for rewrite in passes.PASSES)], ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_whole_nets_agree_with_every_pass_on_and_off(name: str, left_out: tuple[str, ...], isa: str) -> None:
    make, image = WHOLE[name]
    fnn.manual_seed(0)
    model = make(nn)
    _away_from_initial(model)
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((6, *image)).astype(np.float32), rng.integers(0, 10, 6)

    def everything() -> tuple[Any, float, Any]:
        gradient = fnn.value_and_grad(model.train(), nn.CrossEntropyLoss())
        loss, gradients = gradient(x, y)
        return model.eval()(x), loss, np.concatenate([gradients[key].ravel() for key in sorted(gradients)])

    state = model.state_dict()  # a training run moves the running statistics
    output, loss, gradients = everything()
    model.load_state_dict(state)
    with without_passes(*left_out):
        other_output, other_loss, other_gradients = everything()
    np.testing.assert_allclose(other_output, output, rtol=0, atol=2e-5 * np.abs(output).max())
    assert other_loss == pytest.approx(loss, rel=2e-5)
    assert np.linalg.norm(other_gradients - gradients) <= 1e-3 * np.linalg.norm(gradients)


def test_passes_that_are_left_out_leave_their_work_to_kernels() -> None:
    model = models.resnet20().eval()
    fused = [step.kernel for step in model.plan((1, 3, 32, 32)).steps]
    with without_passes("fold_batch_norm"):
        unfolded = [step.kernel for step in model.plan((1, 3, 32, 32)).steps]
    with without_passes():
        plain = [step.kernel for step in model.plan((1, 3, 32, 32)).steps]
    assert "batch_norm_eval_forward" not in fused and "batch_norm_fold" in fused
    assert "batch_norm_eval_forward" in unfolded and "relu_forward" not in unfolded
    assert "relu_forward" in plain and "add" in "".join(plain)
    with pytest.raises(ValueError, match="none of remove_dead_code"), without_passes("fuse"):
        pass


# ---- repeated calls


def test_a_repeated_call_sees_every_change() -> None:
    """What C recognises as the call before must be the call before: weights, modes, shapes, order in memory, settings."""
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    rng = np.random.default_rng(3)
    x = rng.standard_normal((5, 4)).astype(np.float32)
    model(x)
    first = model(x)
    np.testing.assert_array_equal(model(x), first)
    np.testing.assert_array_equal(model(np.asfortranarray(x)), first)
    np.testing.assert_allclose(model(x.astype(np.float64)), first, rtol=1e-6)
    np.testing.assert_allclose(model(x[::-1])[::-1], first, rtol=1e-5)
    np.testing.assert_allclose(model(x[:2]), first[:2], rtol=1e-5)
    np.testing.assert_allclose(model(x.astype(">f4")), first, rtol=1e-6)
    np.testing.assert_allclose(model(x.tolist()), first, rtol=1e-6)
    model[3].bias.data = model[3].bias.data + np.float32(1)
    np.testing.assert_allclose(model(x), first + 1, rtol=1e-5, atol=1e-5)
    model[3].bias.data = model[3].bias.data - np.float32(1)
    with fnn.use_isa("scalar"):
        np.testing.assert_allclose(model(x), first, rtol=1e-4, atol=1e-5)
    training = model.train()(x)
    assert np.abs(training - first).max() > 1e-3
    model.eval()
    model[1] = nn.Identity()
    assert np.abs(model(x) - first).max() > 1e-6


def test_a_repeated_step_refuses_labels_out_of_range() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    trainer = fnn.Trainer(model, nn.CrossEntropyLoss(ignore_index=-7), optim.SGD(lr=0.1))
    x, y = np.ones((4, 4), np.float32), np.array([0, 1, 2, -7])
    losses = [trainer.step(x, y) for _ in range(4)]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1]
    before = model.state_dict()
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=f"got {wrong}"):
            trainer.step(x, np.array([0, 1, wrong, 2]))
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())
    assert trainer.step(x, y) < losses[-1] and trainer.steps == 5


def test_images_in_either_order_of_memory_again_and_again() -> None:
    model = models.lenet().eval()
    x = np.random.default_rng(0).standard_normal((3, 1, 28, 28)).astype(np.float32)
    colour = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    first = np.random.default_rng(1).standard_normal((2, 3, 9, 7)).astype(np.float32)
    last = np.ascontiguousarray(first.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for _ in range(3):
        np.testing.assert_array_equal(colour(first), colour(last))
        np.testing.assert_array_equal(model(x), model(x.copy()))
    assert colour(last).transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("name", ("lenet", "resnet20"))
def test_ten_threads_with_one_model_get_its_bits(name: str) -> None:
    net = models.NETS[name]
    model = net.make(nn).eval()
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((1 + i % 3, *net.image)).astype(np.float32) for i in range(40)]
    expected = [model(x).tobytes() for x in inputs]
    with ThreadPoolExecutor(10) as pool:
        for _ in range(2):
            assert [y.tobytes() for y in pool.map(model, inputs)] == expected
