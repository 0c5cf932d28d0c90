"""Files of an export that a program needs besides the model: tokenizer, template, end of a reply.

Both runtimes here are libraries that know ids only, so their programs use transformers' tokenizer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli.events import Emit
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.storage.foreign_files import remove_foreign_entries

if TYPE_CHECKING:
    from convo_cli.export.source import Source

_GENERATION_FILE = "generation_config.json"
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


class ProgramTokenizer:
    """The tokenizer of a folder, by transformers, and the end of a reply."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        stated = json.loads((folder / _GENERATION_FILE).read_bytes()).get("eos_token_id")
        self.stop_ids: Sequence[int] = [stated] if isinstance(stated, int) else list(stated or ())

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text without tokens around it."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the ids of a prompt by the chat template."""
        found = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, return_dict=True
        )
        ids: list[int] = found["input_ids"]
        return ids
