"""Every kernel of every instruction set of this CPU against the NumPy reference."""

from .checks import CHECKS
from .runner import Outcome, run_checks

__all__ = ["CHECKS", "Outcome", "run_checks"]
