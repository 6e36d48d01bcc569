"""Running a piece of Python in a fresh interpreter: settings that are read at import can be tested no other way."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

READ_AT_IMPORT = ("OMP_NUM_THREADS", "FASTNN_NUM_THREADS", "FASTNN_ISA", "OMP_THREAD_LIMIT", "OMP_DYNAMIC")


def run_python(code: str, timeout: float = 120.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a new process with only the given ones of our environment variables set."""
    inherited = {name: value for name, value in os.environ.items() if name not in READ_AT_IMPORT}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def output_of(code: str, timeout: float = 120.0, **environment: str) -> str:
    """What the code prints, stripped; fails the test with its error output when it ends badly."""
    result = run_python(code, timeout, **environment)
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stderr}"
    return result.stdout.strip()
