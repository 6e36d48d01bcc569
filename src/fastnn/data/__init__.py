"""Data sets to try things on."""

from .digits import Digits, load_digits

__all__ = ["Digits", "load_digits"]
