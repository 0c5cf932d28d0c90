"""`convo export FOLDER --verify`: an export compared with its manifest, contract and expected ids.

An export is opened in its runtime only if every file is as convo wrote it, in the bounded process.
A folder that is not is compared by its text files alone: a stranger's GGUF is never opened.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convo_cli.config.schema import PretrainedModel
from convo_cli.errors import (
    ChangedError,
    CheckpointError,
    ConvoError,
    ProblemDetail,
    UsageError,
    typeable,
)  # fmt: skip
from convo_cli.events import Emit
from convo_cli.export.bounded import bounded_runtime
from convo_cli.export.bounded.runtime_pipe import RuntimeFailedError
from convo_cli.export.export_places import require_export
from convo_cli.export.format import Dtype
from convo_cli.export.formats import FORMATS
from convo_cli.export.manifest_differences import manifest_differences
from convo_cli.export.proof.answer_comparison import (
    DifferenceError,
    Rules,
    compare_answers,
)
from convo_cli.export.proof.expected_file import read_expected
from convo_cli.export.proof.proving import missing_modules
from convo_cli.export.proof.receipt import Compared, Receipt, Replies, RuntimeVersion
from convo_cli.export.stated_fields import differing_fields, read_contract
from convo_cli.export.stated_receipt import (
    form_of,
    read_receipt,
    reason_not_to_open,
    receipt_differences,
)
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.storage.sealed import MANIFEST_FILE, read_manifest
from convo_cli.storage.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Verified:
    """The result: all that could be compared is equal."""

    folder: Path
    export: str | None
    """The name of the format; None if neither receipt nor files tell it."""
    dtype: Dtype | None = None
    receipt: Receipt | None = None
    runtime: RuntimeVersion | None = None
    """None: the export was not opened; ``notes`` say why."""
    hard_texts: Compared | None = None
    prompts: Compared | None = None
    replies: Replies | None = None
    num_files: int = 0
    """Files that equal the manifest."""
    notes: tuple[str, ...] = ()


def verify_folder(folder: Path, emit: Emit, base: str | None = None) -> Verified:
    """Compare an export with its manifest, its dialogue.json and its expected ids.

    Raises UsageError if it is no export or its runtime is not installed, CheckpointError
    for damaged files and other ids, ChangedError if only fields differ from dialogue.json.
    """
    require_export(folder)
    before, notes = Snapshot.of(folder), list[str]()
    has_manifest = os.path.lexists(folder / MANIFEST_FILE)
    damages = list(manifest_differences(folder, notes, emit)) if has_manifest else []
    contract = read_contract(folder)
    receipt = None if damages else read_receipt(folder)
    fields = [] if contract is None else list(differing_fields(folder, contract))
    if receipt is not None and has_manifest:
        damages += receipt_differences(folder, receipt, contract)
    _require_none(folder, damages, fields)
    name = receipt.export if receipt else form_of(folder)
    verified = Verified(
        folder,
        name,
        receipt.dtype if receipt else None,
        receipt,
        num_files=len(read_manifest(folder, may_be_link=True)) if has_manifest else 0,
    )
    if (reason := reason_not_to_open(folder, receipt, has_manifest)) is not None:
        return replace(verified, notes=(*notes, reason))
    assert receipt is not None, "else it is not opened"
    opened = _compare(folder, receipt, base, emit)
    before.require_unchanged()
    return replace(verified, notes=tuple(notes), **opened)


def _require_none(folder: Path, damages: Sequence[str], fields: Sequence[str]) -> None:
    """Raise the error that lists all differences."""
    if not (found := [*damages, *fields]):
        return
    problems = [ProblemDetail(message=one) for one in found]
    listed = "".join(f"\n  {one}" for one in found)
    if damages:
        raise CheckpointError(
            f"{folder}: not the export as it was written:{listed}",
            hint="copy it again from an intact copy, or export the checkpoint again",
            problems=problems,
        )
    raise ChangedError(
        f"{folder}: differs from its {DIALOGUE_FILE}:{listed}",
        hint="restore these files, or export the checkpoint again",
        problems=problems,
    )


def _compare(folder: Path, receipt: Receipt, base: str | None, emit: Emit) -> dict[str, Any]:
    """Open the export in its runtime, and compare what it gives with expected.json."""
    form = FORMATS[receipt.export]
    about, (answers, inexact) = form.about(), read_expected(folder)
    if missing := missing_modules(about):
        raise UsageError(
            f"{folder}: its files are whole, but {', '.join(missing)}, which opens this export, is "
            "not installed",
            hint=f"{about.how_to_install_runtime or 'install it'}, then convo export "
            f"{typeable(folder)} --verify",
        )
    place = None if about.merges else _base(folder, base)
    try:
        with bounded_runtime.BoundedRuntime(form, folder, place) as runtime:
            rules = Rules(runtime.opened.name, inexact, receipt.dtype == "fp32")
            found = compare_answers(runtime, answers, rules, "verifying the ids", emit)
            for part in ("prompts", "hard_texts"):
                _require_no_more(getattr(receipt, part), found[part], rules.runtime)
            return found
    except (DifferenceError, RuntimeFailedError) as error:
        raise CheckpointError(
            f"{folder}: {error.message}",
            hint="the files are whole, so the runtime reads them differently now: install the "
            f"version of the receipt ({receipt.runtime.version if receipt.runtime else 'none'}), "
            "or export the checkpoint again",
        ) from error


def _require_no_more(stated: Compared | None, found: Compared, runtime: str) -> None:
    """Raise DifferenceError if more texts differ than a receipt states."""
    allowed = stated.num - stated.num_equal if stated else 0
    if found.num - found.num_equal > allowed:
        raise DifferenceError(f"in {runtime}, {found.first_difference}")


def _base(folder: Path, given: str | None) -> Path:
    """Return the folder of an adapter's base."""
    from convo_cli.model.adapters.adapter_files import find_base, read_adapter

    place = None if given is None else PretrainedModel(given, None)
    try:
        return find_base(folder, read_adapter(folder).base, place).path
    except ConvoError as error:
        raise UsageError(
            error.message, hint=error.hint or "give the folder of the base with --base"
        ) from error
