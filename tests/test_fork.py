"""fastnn in forked and spawned children, before and after parallel runs in the parent."""

from __future__ import annotations

import os

import pytest
from subprocesses import output_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")

COMMON = """
    import hashlib, os, sys, threading, time
    import numpy as np, fastnn as fnn
    from fastnn import nn
    fnn.set_num_threads(4)
    model = nn.Sequential(nn.ReLU(), nn.Flatten(1))
    x = np.random.default_rng(0).standard_normal((8, 64, 61, 67)).astype(np.float32)

    def digest():
        return hashlib.sha256(model(x).tobytes()).hexdigest()

    def in_child(function):
        '''The result of function() in a forked child, or "hung" after a minute.'''
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, str(function()).encode())
            os._exit(0)
        os.close(writer)
        deadline = time.monotonic() + 60
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, 9)
                os.waitpid(child, 0)
                return "hung"
            time.sleep(0.005)
        return os.read(reader, 1 << 16).decode()
"""


def test_child_after_a_parallel_run_in_the_parent() -> None:
    code = (
        COMMON
        + """
    before = digest()
    print(in_child(digest) == before, digest() == before)
    """
    )
    assert output_of(code) == "True True"


def test_child_before_any_run_in_the_parent() -> None:
    code = (
        COMMON
        + """
    child = in_child(digest)
    print(child == digest())
    """
    )
    assert output_of(code) == "True"


def test_grandchild() -> None:
    code = (
        COMMON
        + """
    before = digest()
    print(in_child(lambda: (digest(), in_child(digest))) == str((before, before)), digest() == before)
    """
    )
    assert output_of(code) == "True True"


def test_child_forked_while_other_threads_run() -> None:
    code = (
        COMMON
        + """
    before = digest()
    stop = threading.Event()

    def keep_running():
        while not stop.is_set():
            model(x)

    runners = [threading.Thread(target=keep_running) for _ in range(3)]
    for runner in runners:
        runner.start()
    results = [in_child(lambda: hashlib.sha256(nn.functional.relu(x).tobytes()).hexdigest()) for _ in range(5)]
    stop.set()
    for runner in runners:
        runner.join()
    expected = hashlib.sha256(nn.functional.relu(x).tobytes()).hexdigest()
    print(results == [expected] * 5)
    """
    )
    assert output_of(code) == "True"


def test_a_lock_held_while_forking_does_not_hang_the_child() -> None:
    """A thread of the parent is in the middle of tracing a model when another one forks; the child traces the same model."""
    code = (
        COMMON
        + """
    parent, tracing, forked = os.getpid(), threading.Event(), threading.Event()

    class Slow(nn.Module):
        def forward(self, x):
            if os.getpid() == parent:
                tracing.set()
                forked.wait()
            return nn.functional.relu(x)

    slow = Slow()
    runner = threading.Thread(target=slow, args=(np.ones((2, 7), np.float32),))
    runner.start()
    tracing.wait()
    result = in_child(lambda: slow(np.ones((3, 5), np.float32)).sum())
    forked.set()
    runner.join()
    print(result)
    """
    )
    assert output_of(code) == "15.0"


def test_child_forked_while_other_threads_compile() -> None:
    code = (
        COMMON
        + """
    stop = threading.Event()

    def keep_compiling():
        size = 1
        while not stop.is_set():
            nn.functional.relu(np.zeros((2, size % 997 + 1), np.float32))
            fnn.random.next_layer()
            size += 1

    runner = threading.Thread(target=keep_compiling)
    runner.start()
    results = [in_child(lambda: nn.functional.relu(np.ones((3, 5), np.float32)).sum()) for _ in range(20)]
    stop.set()
    runner.join()
    print(results == ["15.0"] * 20)
    """
    )
    assert output_of(code) == "True"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_pool(method: str, tmp_path: os.PathLike[str]) -> None:
    script = os.path.join(tmp_path, "pool.py")
    with open(script, "w", encoding="utf-8") as file:
        file.write(
            "import multiprocessing\n"
            "import numpy as np, fastnn as fnn\n"
            "from fastnn import nn\n"
            "x = np.random.default_rng(0).standard_normal((500, 1000)).astype(np.float32)\n"
            "def work(scale):\n"
            "    return nn.functional.relu(x * np.float32(scale)).tobytes()\n"
            "if __name__ == '__main__':\n"
            "    fnn.set_num_threads(3)\n"
            "    expected = [work(i) for i in range(4)]\n"
            f"    with multiprocessing.get_context({method!r}).Pool(2) as pool:\n"
            "        print(pool.map_async(work, range(4)).get(60) == expected)\n"
        )
    assert output_of(f"import runpy; runpy.run_path({script!r}, run_name='__main__')") == "True"
