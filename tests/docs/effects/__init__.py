"""The effects of all config keys: a table of checked entries, the source of docs/effects.md."""

from tests.docs.effects import (  # noqa: F401  # they fill the table
    data_columns,
    evaluation,
    generation,
    model,
    run,
    training,
)
from tests.docs.effects.entry import EFFECTS, Effect

__all__ = ["EFFECTS", "Effect"]
