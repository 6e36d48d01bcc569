"""Makes fastnn's number of threads visible to threadpoolctl: listed by threadpool_info, limited by threadpool_limits."""

from __future__ import annotations

import threadpoolctl

from .version import __version__


class FastnnController(threadpoolctl.LibController):  # type: ignore[misc]  # threadpoolctl has no types
    """The compiled module as a library with a pool of threads of its own.

    It answers to `user_api="openmp"`, so that whoever limits OpenMP (joblib, scikit-learn) limits builds without
    an OpenMP runtime, too.

    >>> from threadpoolctl import threadpool_limits
    >>> before = fnn.get_num_threads()
    >>> with threadpool_limits(1):
    ...     fnn.get_num_threads()
    1
    >>> fnn.get_num_threads() == before
    True
    """

    user_api = "openmp"
    internal_api = "fastnn"
    filename_prefixes = ("_core",)
    check_symbols = ("fastnn_get_num_threads", "fastnn_set_num_threads")

    def get_num_threads(self) -> int:
        """Threads that a call made now would use."""
        return int(self.dynlib.fastnn_get_num_threads())

    def set_num_threads(self, num_threads: int) -> None:
        """Threads for calls from now on."""
        self.dynlib.fastnn_set_num_threads(int(num_threads))

    def get_version(self) -> str:
        """The version of fastnn."""
        return __version__


threadpoolctl.register(FastnnController)
