"""The version, where every module may read it; that of pyproject.toml is the same (tests/test_packaging.py)."""

__version__ = "0.1.0"
