"""Receipt of an export's folder, and what of it the folder does not hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from convo_cli.export.formats import FORMATS
from convo_cli.export.proof.receipt import EXPECTED_FILE, Receipt
from convo_cli.export.stated_fields import read_stated
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.runs.provenance.other_exports import RECEIPT_FILE
from convo_cli.storage.sealed import MANIFEST_FILE
from convo_cli.text.contract import DialogueContract, sha256_of

_MAX_RECEIPT_BYTES = 2**20


def read_receipt(folder: Path) -> Receipt | None:
    """Return the receipt of a folder; None without one, CheckpointError if it is not one."""
    fault, hint = "not a receipt of this version of convo", "export the checkpoint again"
    return read_stated(folder / RECEIPT_FILE, Receipt, _MAX_RECEIPT_BYTES, fault, hint)


def receipt_differences(
    folder: Path, receipt: Receipt, contract: DialogueContract | None
) -> Iterator[str]:
    """Yield what a receipt states that its folder does not hold: it is that of another export."""
    found = form_of(folder)
    if receipt.export in FORMATS and found != receipt.export:
        yield f"{RECEIPT_FILE}: of an export for {receipt.export}, but the weights are {found}"
    if contract is None:
        yield f"{DIALOGUE_FILE}: missing"
        return
    template = hashlib.sha256(contract.chat_template.encode()).hexdigest()
    is_same = template == receipt.chat_template_sha256
    # A folder with a tokenizer may state the template in the words of an earlier convo.
    if (is_same or not (folder / "tokenizer.json").exists()) and (
        sha256_of(contract) != receipt.contract_sha256
    ):
        yield f"{RECEIPT_FILE}: of an export with another {DIALOGUE_FILE}"


def form_of(folder: Path) -> str | None:
    """Return the format of a folder by the names of its files of weights; None for others."""
    found = (name for name, form in FORMATS.items() if any(folder.glob(form.about().weights)))
    return next(found, None)


def reason_not_to_open(folder: Path, receipt: Receipt | None, has_manifest: bool) -> str | None:
    """Return why an export is not opened in its runtime."""
    if not has_manifest:
        return (
            f"there is no {MANIFEST_FILE}, so convo cannot know that it wrote these weights, and "
            "does not open them"
        )
    if receipt is None or not (folder / EXPECTED_FILE).is_file():
        return (
            "an earlier version of convo wrote this export, without a receipt: its files are "
            "whole, but there are no ids to compare with; export the checkpoint again for them"
        )
    if receipt.export not in FORMATS:
        return "this version of convo does not know the format of the receipt"
    return None
