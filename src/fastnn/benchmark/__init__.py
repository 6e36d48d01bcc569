"""Measuring: this machine's own peaks, kernels against them, and peers in the same run."""
