"""What this session has run so far; conftest.py fills it, test_registry.py asks."""

from __future__ import annotations

built_kernels: set[str] = set()
"""Kernels of every program built."""

partial_modules: set[str] = set()
"""Test modules of which only some tests run."""
