"""What every key of the config does, as a table of entries with a check each; docs/effects.md is
made of it.
"""

from tests.docs.effects import evaluation, generation, model, run, training  # noqa: F401  # they fill the table
from tests.docs.effects.entry import EFFECTS, Effect

__all__ = ["EFFECTS", "Effect"]
