"""The receipt of an export, from a comparison with its checkpoint before it is published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convo_cli import __version__
from convo_cli.errors import CheckpointError
from convo_cli.events import Emit, Notice, Progress
from convo_cli.export.bounded import bounded_runtime
from convo_cli.export.bounded.runtime_pipe import RuntimeFailedError
from convo_cli.export.format import About, Dtype
from convo_cli.export.formats import FORMATS
from convo_cli.export.proof.answer_comparison import (
    DifferenceError,
    Rules,
    compare_answers,
    compare_perplexities,
    compare_texts,
)
from convo_cli.export.proof.checkpoint_answers import CheckpointAnswers, ask_checkpoint
from convo_cli.export.proof.expected_file import write_expected
from convo_cli.export.proof.probe_dialogues import scripts_in
from convo_cli.export.proof.receipt import Compared, Receipt
from convo_cli.export.proof.run_data import read_run_data
from convo_cli.export.source import Source
from convo_cli.export.stated_fields import differing_texts, read_contract
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.runs.provenance.other_exports import RECEIPT_FILE
from convo_cli.storage.sealed import file_sha256
from convo_cli.text.contract import contract_of, contract_sha256

HOW_TO_CHECK = "convo export FOLDER --verify"
_DEFECT = (
    "this is a defect of convo, of the runtime or of the model's transformers code: please report "
    "it"
)
_STAGES = ("computing the checkpoint's replies", "comparing replies")


def prove(name: str, folder: Path, source: Source, dtype: Dtype, emit: Emit) -> Receipt:
    """Compare a written folder with its checkpoint, and write receipt.json and expected.json.

    CheckpointError names the first difference, or why the runtime cannot open the export. Without
    the runtime, nothing is compared, and the receipt says so.
    """
    about = FORMATS[name].about()
    inexact, missing = _inexact(about, source), missing_modules(about)
    _require_contract(folder, source)
    # A merged adapter needs no base.
    base = None if about.merges else source.base
    with ExitStack() as stack:
        emit(Progress(_STAGES[0], 0))
        answers = ask_checkpoint(
            source.generator,
            read_run_data(source),
            obeys_defaults=about.uses_generation_config,
            tie=about.tie(source.generator.model.config.to_dict()),
        )
        compared: dict[str, Any] = {}
        # Its time limit begins here, so it holds none of the checkpoint's own computing.
        runtime = None if missing else stack.enter_context(_open(name, folder, base))
        if runtime is None:
            emit(
                Notice(
                    f"export: not checked here, because {' and '.join(missing)} "
                    f"{'is' if len(missing) == 1 else 'are'} not installed",
                    is_warning=True,
                )
            )
        else:
            try:
                rules = _rules(about, source, runtime.opened.name, dtype)
                compared = _compare(runtime, answers, rules, emit)
            except (DifferenceError, RuntimeFailedError) as error:
                raise CheckpointError(
                    f"nothing was exported: {error.message}",
                    hint=error.hint or _hint(about, error),
                ) from error
            _warn(compared, inexact, emit)
    write_expected(answers, inexact, folder)
    compared["absent"] = _absent(answers)
    receipt = _receipt(name, source, dtype, _how_to_check(about), compared)
    text = receipt.model_dump_json(indent=2)
    (folder / RECEIPT_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")
    return receipt


def _require_contract(folder: Path, source: Source) -> None:
    """Raise CheckpointError if a file states another contract than the checkpoint has.

    dialogue.json may have the older words of a chat template.
    """
    found, wanted = read_contract(folder), contract_of(source.generator.encoder)
    if (
        found is not None
        and found.model_copy(update={"chat_template": wanted.chat_template}) != wanted
    ):
        raise CheckpointError(
            f"nothing was exported: its {DIALOGUE_FILE} is not that of the checkpoint", hint=_DEFECT
        )
    # No test dialogue shows every difference of a template, such as one that does not trim texts.
    if difference := next(differing_texts(folder, wanted), None):
        raise CheckpointError(f"nothing was exported: {difference}", hint=_DEFECT)


def missing_modules(about: About) -> list[str]:
    """Return the modules of the runtime that are not installed."""
    return [module for module in about.runs_with if find_spec(module) is None]


def _open(name: str, folder: Path, base: Path | None) -> bounded_runtime.BoundedRuntime:
    return bounded_runtime.BoundedRuntime(FORMATS[name], folder, base)


def _hint(about: About, error: CheckpointError) -> str:
    """Return what to do; a runtime that fails may be a broken package."""
    if not isinstance(error, RuntimeFailedError):
        return _DEFECT
    program = about.runs_with[0]
    return (
        f"if {program} itself does not work, reinstall it: pip install --upgrade "
        f"--force-reinstall {program}; otherwise {_DEFECT}"
    )


def _how_to_check(about: About) -> str:
    install = about.how_to_install_runtime
    return f"{install}, then {HOW_TO_CHECK}" if missing_modules(about) and install else HOW_TO_CHECK


def _inexact(about: About, source: Source) -> str | None:
    """Return why the runtime reads some texts differently; None if it must not."""
    return None if about.inexact is None else about.inexact(_spec(source))


def _rules(about: About, source: Source, runtime: str, dtype: Dtype) -> Rules:
    rules = Rules(runtime, _inexact(about, source), dtype == "fp32")
    if about.explains is None:
        return rules
    return replace(rules, explains=partial(about.explains, _spec(source)))


def _spec(source: Source) -> dict[str, Any]:
    """Return tokenizer.json."""
    tokenizer: Any = source.generator.encoder.tokenizer
    spec: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return spec


def _compare(
    runtime: bounded_runtime.BoundedRuntime,
    answers: CheckpointAnswers,
    rules: Rules,
    emit: Emit,
) -> dict[str, Any]:
    """Return the fields of the receipt that the comparison gives."""
    name, prompts = rules.runtime, answers.prompts
    emit(Notice(f"export: opened in {name}, to compare it with the checkpoint"))
    found = compare_answers(runtime, answers, rules, _STAGES[1], emit)
    if (trained := answers.training_texts) is not None:
        found["training_texts"] = compare_texts(
            "a training text", trained, runtime.text_ids(trained.texts), rules, is_own=False
        )
    targets = answers.targets
    if targets.nll:
        found["perplexity"] = compare_perplexities(targets, runtime.nll(targets.places), rules)
    found["scripts"] = tuple(sorted(scripts_in(one.turns for one in prompts)))
    return found


def _absent(answers: CheckpointAnswers) -> dict[str, str]:
    """Return why parts were not compared; replies take the place of missing validation data."""
    absent = dict(answers.absent)
    if answers.training_texts is None:
        absent.setdefault("training_texts", "the training data has no text")
    return absent


def _warn(compared: dict[str, Any], inexact: str | None, emit: Emit) -> None:
    """Warn of texts that the runtime reads differently, which is then no error."""
    names = {"hard_texts": "hard texts", "training_texts": "training texts", "prompts": "prompts"}
    for field, what in names.items():
        part = compared.get(field)
        if isinstance(part, Compared) and part.num_equal < part.num:
            message = (
                f"export: {compared['runtime'].name} reads {part.num - part.num_equal:,} of "
                f"{part.num:,} {what} differently ({inexact}): in such texts the model sees other "
                "tokens than in training"
            )
            emit(Notice(message, is_warning=True))


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
