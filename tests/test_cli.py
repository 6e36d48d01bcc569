"""The command line: info, train digits, what wrong options get."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn as fnn
from fastnn import _core
from fastnn.cli import COMMANDS, main
from fastnn.cli.train import make_digits_model

Capture = pytest.CaptureFixture[str]


def test_python_m_fastnn() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fastnn", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == f"fastnn {fnn.__version__}\n" and result.stderr == ""


def test_help_lists_the_commands(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^ +{name} ", shown, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "usage", "message"),
    [
        ("bench --nothing", "fastnn bench", "unrecognized arguments: --nothing"),
        ("info here", "fastnn info", "unrecognized arguments: here"),
        ("train digits --batch 8x", "fastnn train digits", "argument --batch-size: '8x' is not a whole number"),
        ("train digits --epoch 1 --rate 2", "fastnn train digits", "unrecognized arguments: --rate 2"),
        ("bench --threads 0", "fastnn bench", "argument --threads: 0 is not at least 1"),
        ("train mnist", "fastnn train", "choose from '?digits'?"),
        ("nothing", "fastnn", "choose from '?bench'?, '?info'?, '?selftest'?, '?train'?"),
    ],
)
def test_wrong_options_show_the_command_s_own_usage(arguments: str, usage: str, message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    shown = capsys.readouterr().err
    assert end.value.code == 2
    assert shown.startswith(f"usage: {usage} [-h]") and re.search(message, shown)


# ---- info


def test_info_as_json(capsys: Capture) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fastnn"] == fnn.__version__ and facts["numpy"] == np.__version__
    assert tuple(facts["available_isas"]) == fnn.available_isas() and facts["isa"] == fnn.current_isa()
    assert facts["threads"] == fnn.get_num_threads() and facts["thread_limits"] == _core.thread_limits()
    assert facts["team"] == _core.TEAM_BACKEND and facts["cpu"]
    if facts["team"] == "openmp":
        assert facts["openmp_runtimes"]


def test_info_says_why(capsys: Capture) -> None:
    fnn.set_num_threads(_core.thread_limits()["chosen"] + 1)
    with fnn.use_isa("scalar"):
        assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^isa: +scalar: use_isa says so$", shown, re.MULTILINE)
    assert re.search(
        r"^threads: +\d+: set by set_num_threads or threadpoolctl; the default is \d+,", shown, re.MULTILINE
    )


def test_info_knows_the_environment() -> None:
    environment = {**os.environ, "FASTNN_ISA": "scalar", "FASTNN_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-m", "fastnn", "info"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )
    assert re.search(r"^isa: +scalar: FASTNN_ISA says so$", result.stdout, re.MULTILINE)
    assert re.search(r"^threads: +1: the least of: .*FASTNN_NUM_THREADS 1\b", result.stdout, re.MULTILINE)


def test_show_config_is_info(capsys: Capture) -> None:
    fnn.show_config()
    shown = capsys.readouterr().out
    main(["info"])
    assert capsys.readouterr().out == shown


# ---- train digits


def test_train_digits_prints_and_saves(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("sklearn")
    options = ["--epochs", "2", "--batch-size", "128", "--lr", "0.004", "--seed", "3", "--threads", "1"]
    assert main(["train", "digits", *options, "--save", str(tmp_path / "weights")]) == 0
    captured = capsys.readouterr()
    assert (
        len(re.findall(r"^epoch \d/2  loss \d+\.\d{4}  accuracy 0\.\d{4}  \d+ images/s$", captured.err, re.MULTILINE))
        == 2
    )
    lines = captured.out.splitlines()
    assert lines[0].startswith("1437 images to train with, 360 to test with; 1 threads,")
    accuracy = re.fullmatch(r"test accuracy: ([01]\.\d{3})", lines[-1])
    assert accuracy
    head = next(i for i, line in enumerate(lines) if line.startswith("confusion matrix"))
    counts = np.array([[int(c) if c != "." else 0 for c in line.split()[1:]] for line in lines[head + 2 : head + 12]])
    assert counts.shape == (10, 10) and counts.sum() == 360
    assert f"{counts.trace() / 360:.3f}" == accuracy[1]
    assert any(re.fullmatch(r"time: \d+\.\d\d s for 2 epochs, \d+ images/s", line) for line in lines)
    model = make_digits_model()
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as saved:
        model.load_state_dict(dict(saved))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--lr nan", "nan is not a finite number of at least 0"),
        ("--lr -1", "not a finite number"),
        ("--epochs 0", "0 is not at least 1"),
        ("--batch-size 0", "0 is not at least 1"),
        ("--threads 0", "0 is not at least 1"),
        ("--seed -1", "does not lie in 0 to"),
        ("--epochs many", "not a whole number"),
    ],
)
def test_wrong_options_are_refused(options: str, message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "digits", *options.split()])
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert main(["train", "digits", "--save", str(tmp_path / "none" / "weights.npz")]) == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert main(["train", "digits", "--save", str(tmp_path)]) == 1
    assert "this is a folder" in capsys.readouterr().err


# ---- bench: what is wrong is said before anything is measured


@pytest.mark.parametrize("options", ["--threads 0", "--threads -1", "--seconds nan", "--seconds 0", "--batch 0"])
def test_wrong_options_of_bench_are_refused(options: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", *options.split()])
    assert end.value.code == 2 and f"argument {options.split()[0]}: " in capsys.readouterr().err


def test_bench_of_nothing(tmp_path: Path, capsys: Capture) -> None:
    assert main(["bench", "--filter", "no such layer"]) == 2
    assert "no layer's name contains 'no such layer'" in capsys.readouterr().out
    for option in ("--run inference", "--batch 3", "--memory", f"--plot {tmp_path / 'plot.png'}"):
        assert main(["bench", *option.split()]) == 2
        assert f"{option.split()[0]} needs --net" in capsys.readouterr().out
    assert main(["bench", "--net", "lenet", "--filter", "relu"]) == 2
    assert "--filter chooses layers" in capsys.readouterr().out
    for option in ("--net lenet --json", "--json", "--net lenet --plot"):
        assert main(["bench", *option.split(), str(tmp_path / "none" / "file")]) == 2
        assert "there is no such folder" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="runs a shell")
def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    """As in `fastnn info | head -1`, with a reader that is gone before the first line."""
    command = (
        f"{sys.executable} -c \"import time; time.sleep(2); from fastnn.cli import main; exit(main(['info']))\" | true"
    )
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert result.stderr == ""


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["train", "digits"]) == 1
    assert "pip install fastnn[examples]" in capsys.readouterr().err
