"""Health of a finished model: the signs that need no training log, judged on evaluated files."""

from __future__ import annotations

from contextlib import nullcontext

from convo_cli.data.held_out.training_facts import TrainingFacts
from convo_cli.evaluation.finished.evaluated_files import EvaluatedFiles
from convo_cli.evaluation.finished.file_likelihood import MAX_SLOTS
from convo_cli.evaluation.health.judges import findings_of
from convo_cli.evaluation.health.reply_probes import probe
from convo_cli.evaluation.health.signs import RunSoFar, Vitals
from convo_cli.evaluation.health.token_frequencies import entropy
from convo_cli.events import EvaluationDone, HealthFinding
from convo_cli.model.batches.batching import Batching
from convo_cli.model.decoding.generator import Generator
from convo_cli.text.tokenizers.vocabulary import num_ids
from convo_cli.tokens.store import ASSISTANT_TARGET


def findings_of_model(
    generator: Generator,
    batching: Batching,
    files: EvaluatedFiles,
    result: EvaluationDone,
    facts: TrainingFacts | None,
) -> tuple[HealthFinding, ...]:
    """Return the findings about a finished model; ``facts`` describe its training data.

    The weights of step 0 have none, because nothing has been trained yet.
    """
    loaded = generator.loaded
    if loaded is not None and loaded.own.step == 0:
        return ()
    probes = probe(
        generator.model, generator.encoder, batching, files.dialogues, generator.model.device,
        nullcontext, max_slots=MAX_SLOTS,
    )  # fmt: skip
    num = num_ids(generator.encoder.tokenizer)
    guessing = entropy(files.store, (ASSISTANT_TARGET,), num)
    known = RunSoFar(step=None, frequency_loss=guessing, training_facts=facts)
    return findings_of(Vitals(result, probes), known)
