"""Files of an export that a program needs besides the model: tokenizer, template, end of a reply.

Both runtimes here are libraries that know ids only, so their programs use transformers' tokenizer.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.events import Emit
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.storage.foreign_files import remove_foreign_entries

if TYPE_CHECKING:
    from convo_cli.export.source import Source

_COPIED = {"tokenizer.json", "tokenizer_config.json", DIALOGUE_FILE}


def write_program_files(source: Source, folder: Path, emit: Emit) -> None:
    """Write the tokenizer, its chat template, dialogue.json and generation_config.json."""
    from convo_cli.export.folders.stated_tokens import state_tokens

    for file in source.files:
        if file.name in _COPIED:
            shutil.copyfile(file, folder / file.name)
    generator = source.generator
    generator.model.generation_config.save_pretrained(folder)
    remove_foreign_entries(folder)
    state_tokens(folder, generator.encoder, generator.model, emit)
