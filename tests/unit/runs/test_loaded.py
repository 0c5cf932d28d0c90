"""The sentence that names a loaded checkpoint and the others that `--load` selects."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from convo_cli.runs.loaded import LoadedCheckpoint, ScoredStep


def test_a_checkpoint_that_two_options_select_is_named_once():
    info = SimpleNamespace(config=SimpleNamespace(evaluation=SimpleNamespace(metric="bleu-4")))
    own, last = ScoredStep(100, 3.5, 1.25), ScoredStep(300, 4.0, 1.5)
    loaded = LoadedCheckpoint(
        Path("runs/a"), cast(Any, info), own, {"last": last, "loss": own, "metric": last}
    )
    scores = "step 300, validation loss 4.000, bleu-4 1.5"
    assert loaded.describe(is_selected=True) == (
        "loaded runs/a: step 100 (best by loss), validation loss 3.500, bleu-4 1.25; "
        f"last checkpoint, best by metric (--load last): {scores}"
    )
    assert loaded.describe(is_selected=False).endswith(
        f"; last checkpoint, best by metric: {scores}"
    )
