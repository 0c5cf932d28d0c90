"""The receipt of an export, from a comparison with its checkpoint before it is published."""

from __future__ import annotations

import hashlib
from pathlib import Path

import transformers

from convo_cli import __version__
from convo_cli.events import Emit, Notice
from convo_cli.export.folders import adapter, legacy_check
from convo_cli.export.format import Dtype
from convo_cli.export.proof.comparison import Counted, verify_export
from convo_cli.export.proof.receipt import Compared, Receipt, Replies, RuntimeVersion
from convo_cli.export.source import Source
from convo_cli.storage.sealed import file_sha256
from convo_cli.text.contract import contract_sha256


def prove(name: str, folder: Path, source: Source, dtype: Dtype, emit: Emit) -> Receipt:
    """Compare a written folder with its checkpoint; CheckpointError if they differ."""
    emit(Notice("export: comparing replies in plain transformers with the checkpoint's"))
    original = source.generator
    if name == "legacy":
        counted = legacy_check.verify(folder, original, emit)
    elif name == "adapter":
        counted = adapter.verify(folder, original, emit)
    else:
        counted = verify_export(folder, original)
    return _receipt(name, source, dtype, counted)


def _receipt(name: str, source: Source, dtype: Dtype, counted: Counted) -> Receipt:
    encoder = source.generator.encoder
    num, num_tokens, loaded = counted.num_prompts, counted.num_tokens, source.loaded
    return Receipt(
        convo=__version__,
        export=name,
        dtype=dtype,
        contract_sha256=contract_sha256(encoder),
        chat_template_sha256=hashlib.sha256(encoder.template.chat_template.encode()).hexdigest(),
        weights_sha256={
            file.name: file_sha256(file) for file in source.files if file.suffix == ".safetensors"
        },
        run_id=loaded and loaded.info.run_id,
        step=loaded and loaded.own.step,
        runtime=RuntimeVersion(
            name="transformers",
            version=f"transformers {transformers.__version__}",
            classes=counted.classes,
        ),
        how_to_check="convo export FOLDER --verify",
        prompts=Compared(num=num, num_equal=num),
        replies=Replies(num=num, num_tokens=num_tokens, num_equal_tokens=num_tokens),
    )
