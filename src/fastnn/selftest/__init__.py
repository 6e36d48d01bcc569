"""Every kernel of every instruction set of this CPU against the NumPy reference."""

from . import checks, checks_shapes, checks_training
from .runner import Outcome, run_checks

CHECKS = {**checks.CHECKS, **checks_shapes.CHECKS, **checks_training.CHECKS}
"""All checks by name."""

__all__ = ["CHECKS", "Outcome", "run_checks"]
