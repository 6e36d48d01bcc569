"""Settings of the comparison with PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """PyTorch runs on one thread: the arrays are tiny, and threads would only wait for each other on a busy machine.

    Its number of threads is OpenMP's, whose maximum fastnn obeys, so the tests that come later get theirs back.
    """
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
