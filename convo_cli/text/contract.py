"""dialogue.json: the contract of how dialogues are rendered, in every checkpoint and export.

resume, chat, evaluate and export rebuild the encoder from it and compare. A tokenizer or template
that no longer gives the same ids is refused with the fields that differ.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from convo_cli.config.schema import TemplateName
from convo_cli.errors import ChangedError, CheckpointError
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.storage.foreign_files import remove_foreign_entries, require_harmless
from convo_cli.text import windows
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.spiece.piece_model import SpieceFile
from convo_cli.text.templates.pieces import Agreement
from convo_cli.text.templates.template import as_before_parts, make_template
from convo_cli.text.tokenizers.pretrained import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_MAX_SHOWN = 200  # characters of a value in an error; a chat template may be very long


class DialogueContract(BaseModel):
    """Everything that must be equal so that two folders render dialogues in the same way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    template: TemplateName
    chat_template: str
    special_tokens: tuple[str, ...]
    stop_tokens: tuple[str, ...]
    stop_ids: tuple[int, ...]
    pad_id: int
    max_length: int
    window_rule: str
    tokenizer_sha256: str
    template_options: dict[str, Any] = {}
    """Values of the template's own variables; ``chat_template`` states them too."""
    agreement: Agreement = "exact"


def contract_of(encoder: DialogueEncoder) -> DialogueContract:
    """Return the contract of an encoder."""
    template = encoder.template
    return DialogueContract(
        template=template.name,
        chat_template=template.chat_template,
        special_tokens=template.special_tokens,
        stop_tokens=template.stop_tokens,
        stop_ids=encoder.stop_ids,
        pad_id=encoder.pad_id,
        max_length=encoder.max_length,
        window_rule=windows.RULE,
        tokenizer_sha256=tokenizer_sha256(encoder.tokenizer),
        template_options=template.options,
        agreement=template.agreement,
    )


def contract_sha256(encoder: DialogueEncoder) -> str:
    """Return one number for the whole contract: equal if two models read dialogues alike."""
    return sha256_of(contract_of(encoder))


def sha256_of(contract: DialogueContract) -> str:
    """Return the number of a contract that was read."""
    values = contract.model_dump(mode="json")
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def save_encoder(encoder: DialogueEncoder, folder: Path, *, spiece: SpieceFile | None) -> None:
    """Write the tokenizer files, the chat template, dialogue.json, and any SentencePiece model."""
    encoder.tokenizer.chat_template = encoder.template.chat_template
    encoder.tokenizer.save_pretrained(folder)
    remove_foreign_entries(folder)
    contract = contract_of(encoder).model_dump_json(indent=2)
    (folder / DIALOGUE_FILE).write_text(contract + "\n", encoding="utf-8")
    if spiece is not None:
        (folder / spiece.name).write_bytes(spiece.content)


def load_encoder(folder: Path) -> DialogueEncoder:
    """Rebuild the encoder of a checkpoint or export, and prove that it fits the contract.

    Raises CheckpointError if dialogue.json is missing or unreadable, ChangedError if the folder no
    longer fits it, ModelError if the folder contains something that no model has.
    """
    require_harmless(folder)
    path = folder / DIALOGUE_FILE
    try:
        contract = DialogueContract.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: not found, so convo has not trained or exported this folder",
            hint="give a run directory, one of its checkpoints, or an export of it",
        ) from None
    except (ValidationError, OSError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise CheckpointError(
            f"{path}: cannot be read ({first})", hint="copy or export the folder again"
        ) from error
    tokenizer = load_tokenizer(folder, str(folder))
    if contract.template != "native":
        tokenizer.chat_template = None
    _restore_end_token(tokenizer, contract)
    template = make_template(
        contract.template, tokenizer, contract.template_options, contract.agreement
    )
    encoder = DialogueEncoder(tokenizer, template, max_length=contract.max_length)
    actual = contract_of(encoder)
    if contract.template != "native" and contract.chat_template == as_before_parts(
        actual.chat_template
    ):
        contract = contract.model_copy(update={"chat_template": actual.chat_template})
    require_same(contract, actual, str(folder))
    return encoder


def _restore_end_token(tokenizer: PreTrainedTokenizerBase, contract: DialogueContract) -> None:
    """Give the tokenizer of an export the end token with which its template was built.

    An export names the end of a reply, which is the first stop token. Of several, the last is the
    tokenizer's own.
    """
    stops = contract.stop_tokens
    if len(stops) < 2 or tokenizer.eos_token != stops[0] or "eos_token" in contract.chat_template:
        return
    if contract.template in ("native", "cls-sep"):
        tokenizer.eos_token = stops[-1]


def require_same(written: DialogueContract, actual: DialogueContract, where: str) -> None:
    """Raise ChangedError that names every field in which the two differ."""
    ours, theirs = written.model_dump(), actual.model_dump()
    differences = [
        f"{field} is {_shown(ours[field])} in {DIALOGUE_FILE}, but {_shown(theirs[field])} now"
        for field in ours
        if ours[field] != theirs[field]
    ]
    if differences:
        raise ChangedError(
            f"{where}: the tokenizer or template differs from that of the training run: "
            + "; ".join(differences),
            hint="restore the folder's tokenizer files, or export it again from the run",
        )


def _shown(value: object) -> str:
    """Return a value of the contract as JSON, as in the file, without the middle of a long one."""
    text, half = json.dumps(value, ensure_ascii=False), _MAX_SHOWN // 2
    return text if len(text) <= _MAX_SHOWN else f"{text[:half]}…{text[-half:]}"


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash everything that decides ids: vocabulary, merges, added tokens, normalizer, splitter."""
    backend = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return hashlib.sha256(backend.to_str().encode()).hexdigest()
