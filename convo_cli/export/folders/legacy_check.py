"""The comparison of a `legacy` export with its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convo_cli.events import Emit, Notice
from convo_cli.export.folders.plain_receipt import verify_in_process
from convo_cli.export.proof.comparison import Counted
from convo_cli.model.decoding.generator import Generator
from convo_cli.text.templates.pieces import special_tokens
from convo_cli.text.tokenizers.probes import PROBES
from convo_cli.wording import quoted


def verify(folder: Path, original: Generator, emit: Emit) -> Counted:
    """Compare replies, and report texts that the tokenizer of the folder encodes differently."""
    tokenizer: Any = original.encoder.tokenizer
    spelled = special_tokens(tokenizer) | {"<unk>"}
    texts = [text for text in PROBES if not any(token in text for token in spelled)]
    receipt, found = verify_in_process(folder, original, texts)
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    both = zip(texts, found, expected, strict=True)
    if others := [text for text, ids, wanted in both if ids != wanted]:
        emit(
            Notice(
                f"export: {len(others)} of {len(texts)} test texts get other ids from "
                f"{receipt.classes[1]}, for example {quoted(others[0])}",
                is_warning=True,
            )
        )
    return receipt
