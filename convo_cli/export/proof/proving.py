"""The receipt of an export, from a comparison with its checkpoint before it is published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convo_cli import __version__
from convo_cli.data.dialogue import as_messages
from convo_cli.errors import CheckpointError
from convo_cli.events import Emit, Notice, Progress
from convo_cli.export.bounded.bounded_runtime import BoundedRuntime
from convo_cli.export.bounded.runtime_pipe import RuntimeFailedError
from convo_cli.export.format import About, Dtype
from convo_cli.export.formats import FORMATS
from convo_cli.export.proof.differences import (
    DifferenceError,
    Rules,
    compare_perplexities,
    compare_prompts,
    compare_replies,
    compare_texts,
    require_stop_ids,
)
from convo_cli.export.proof.evidence import Evidence, gather_evidence
from convo_cli.export.proof.expected import write_expected
from convo_cli.export.proof.probe_dialogues import scripts_in
from convo_cli.export.proof.receipt import RECEIPT_FILE, Compared, Receipt, RuntimeVersion
from convo_cli.export.proof.run_data import read_run_data
from convo_cli.export.source import Source
from convo_cli.storage.sealed import file_sha256
from convo_cli.text.contract import contract_sha256

HOW_TO_CHECK = "convo export FOLDER --verify"
_DEFECT = (
    "this is a defect of convo, of the runtime or of the model's transformers code: please report "
    "it"
)
_STAGE = "checking the export"


def prove(name: str, folder: Path, source: Source, dtype: Dtype, emit: Emit) -> Receipt:
    """Compare a written folder with its checkpoint, and write receipt.json and expected.json.

    CheckpointError names the first difference, or why the runtime cannot open the export. Without
    the runtime, nothing is compared, and the receipt says so.
    """
    about = FORMATS[name].about()
    missing = missing_modules(about)
    # A merged adapter needs no base.
    base = None if about.merges else source.base
    with ExitStack() as stack:
        runtime = None if missing else stack.enter_context(_open(name, folder, base))
        emit(Progress(_STAGE, 0))
        evidence = gather_evidence(
            source.generator, read_run_data(source), obeys_defaults=about.uses_generation_config
        )
        compared: dict[str, Any] = {"absent": _absent(evidence, None)}
        if runtime is None:
            emit(Notice(f"export: not checked here: {_how_to_check(about)}", is_warning=True))
        else:
            try:
                compared = _compare(runtime, evidence, name, source, dtype, emit)
            except (DifferenceError, RuntimeFailedError) as error:
                raise CheckpointError(
                    f"nothing was exported: {error.message}", hint=error.hint or _DEFECT
                ) from error
            _notice(compared, _inexact(name, source), dtype, emit)
    write_expected(evidence, _inexact(name, source), folder)
    receipt = _receipt(name, source, dtype, _how_to_check(about), compared)
    text = receipt.model_dump_json(indent=2)
    (folder / RECEIPT_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")
    return receipt


def missing_modules(about: About) -> list[str]:
    """Return the modules of the runtime that are not installed."""
    return [module for module in about.runs_with if find_spec(module) is None]


def _open(name: str, folder: Path, base: Path | None) -> BoundedRuntime:
    return BoundedRuntime(FORMATS[name], folder, base)


def _how_to_check(about: About) -> str:
    install = about.how_to_install_runtime
    return f"{install}, then {HOW_TO_CHECK}" if missing_modules(about) and install else HOW_TO_CHECK


def _inexact(name: str, source: Source) -> str | None:
    """Return why the runtime reads some texts differently; None if it must not."""
    inexact = FORMATS[name].about().inexact
    tokenizer: Any = source.generator.encoder.tokenizer
    return None if inexact is None else inexact(json.loads(tokenizer.backend_tokenizer.to_str()))


def _compare(
    runtime: BoundedRuntime,
    evidence: Evidence,
    name: str,
    source: Source,
    dtype: Dtype,
    emit: Emit,
) -> dict[str, Any]:
    """Return the fields of the receipt that the comparison gives."""
    opened, prompts = runtime.opened, evidence.prompts
    rules = Rules(opened.name, _inexact(name, source), dtype == "fp32")
    emit(Notice(f"export: comparing it in {opened.name} with the checkpoint"))
    require_stop_ids(opened.stop_ids, evidence.stop_ids, rules)
    found: dict[str, Any] = {
        "runtime": RuntimeVersion(
            name=opened.name, version=opened.version, classes=tuple(opened.classes)
        )
    }
    # A template that differs is found by the prompts; they name it better than the texts.
    found["prompts"] = compare_prompts(
        prompts,
        runtime.prompt_ids([as_messages(one.turns) for one in prompts]),
        rules,
        evidence.num_prompts_left_out,
    )
    hard, trained = evidence.hard_texts, evidence.training_texts
    found["hard_texts"] = compare_texts(
        "a hard text", hard, runtime.text_ids(hard.texts), rules, is_own=True
    )
    if trained is not None:
        found["training_texts"] = compare_texts(
            "a training text", trained, runtime.text_ids(trained.texts), rules, is_own=False
        )
    replies = list[list[int]]()
    for number, one in enumerate(prompts):
        emit(Progress(_STAGE, number, len(prompts), "dialogues"))
        replies += runtime.greedy([one.ids], evidence.num_tokens)
    emit(Progress(_STAGE, len(prompts), len(prompts), "dialogues"))
    found["replies"] = compare_replies(prompts, replies, rules)
    targets = evidence.targets
    if targets.nll:
        found["perplexity"] = compare_perplexities(targets, runtime.nll(targets.places), rules)
    found["scripts"] = tuple(sorted(scripts_in(one.turns for one in prompts)))
    found["absent"] = _absent(evidence, found)
    return found


def _absent(evidence: Evidence, found: dict[str, Any] | None) -> dict[str, str]:
    """Return why parts were not compared; replies take the place of missing validation data."""
    absent = dict(evidence.absent)
    if evidence.training_texts is None:
        absent.setdefault("training_texts", "the training data has no text")
    return absent


def _notice(compared: dict[str, Any], inexact: str | None, dtype: Dtype, emit: Emit) -> None:
    """Report what differs and is no error."""
    names = {"hard_texts": "hard texts", "training_texts": "training texts", "prompts": "prompts"}
    for field, what in names.items():
        part = compared.get(field)
        if isinstance(part, Compared) and part.num_equal < part.num:
            message = (
                f"export: {compared['runtime'].name} reads {part.num_equal:,} of {part.num:,} "
                f"{what} like the checkpoint ({inexact}); {part.first_difference}"
            )
            emit(Notice(message, is_warning=True))
    replies, perplexity = compared["replies"], compared.get("perplexity")
    if dtype != "fp32":
        message = (
            f"export: in {dtype}, {replies.num_equal_tokens:,} of {replies.num_tokens:,} tokens of "
            "replies equal the checkpoint's"
        )
        if perplexity is not None:
            message += (
                f"; perplexity {perplexity.export:.4g} instead of {perplexity.checkpoint:.4g} on "
                f"{perplexity.num_targets:,} targets of {perplexity.data}"
            )
        emit(Notice(message))


def _receipt(
    name: str, source: Source, dtype: Dtype, how_to_check: str, compared: dict[str, Any]
) -> Receipt:
    encoder, loaded = source.generator.encoder, source.loaded
    return Receipt(
        convo=__version__,
        export=name,
        dtype=dtype,
        contract_sha256=contract_sha256(encoder),
        chat_template_sha256=hashlib.sha256(encoder.template.chat_template.encode()).hexdigest(),
        weights_sha256={file.name: file_sha256(file) for file in _weights(source.files)},
        run_id=loaded and loaded.info.run_id,
        step=loaded and loaded.own.step,
        how_to_check=how_to_check,
        **{"runtime": None, **compared},
    )


def _weights(files: Sequence[Path]) -> list[Path]:
    return [file for file in files if file.suffix == ".safetensors"]
