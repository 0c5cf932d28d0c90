"""receipt.json: what an export was compared on in its own runtime, and what differed.

It holds no text of the data, and no path or name of this machine.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from convo_cli.export.format import Dtype

EXPECTED_FILE = "expected.json"
"""Ids of convo's own texts and prompts by the checkpoint, for `convo export FOLDER --verify`."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Compared(_Part):
    """Texts or prompts by their ids."""

    num: int
    num_equal: int
    num_left_out: int = 0
    """Texts that spell a special token of the model, and dialogues that its template refuses."""
    first_difference: str | None = None


class Replies(_Part):
    """Greedy replies; tokens count as equal up to the first difference of each reply."""

    num: int
    num_tokens: int
    num_equal_tokens: int
    num_ties: int = 0
    """Replies that differ first where two tokens are as likely, to rounding."""
    first_difference: str | None = None


class Perplexities(_Part):
    """The perplexity of the same targets by the checkpoint and by the export."""

    data: Literal["validation", "replies"]
    """Targets of the validation file, or the checkpoint's replies if there is none."""
    num_targets: int
    checkpoint: float
    export: float

    @property
    def data_in_words(self) -> str:
        """Name the data for people."""
        return (
            "first replies of the validation data"
            if self.data == "validation"
            else "the checkpoint's replies"
        )


class RuntimeVersion(_Part):
    """The program that opened the export."""

    name: str
    version: str
    classes: tuple[str, ...] = ()
    """The classes of model and tokenizer, if the runtime is transformers."""


class Receipt(_Part):
    """The comparison of an export with its checkpoint."""

    version: Literal[1] = 1
    convo: str
    export: str
    """The name of the format."""
    dtype: Dtype
    contract_sha256: str
    chat_template_sha256: str
    weights_sha256: dict[str, str]
    """Of the checkpoint's weight files, by name."""
    run_id: str | None
    step: int | None
    runtime: RuntimeVersion | None
    """None: the runtime is not installed, so nothing was compared; ``how_to_check`` says more."""
    how_to_check: str
    hard_texts: Compared | None = None
    training_texts: Compared | None = None
    prompts: Compared | None = None
    scripts: tuple[str, ...] = ()
    """The scripts of the dialogues, such as latin."""
    replies: Replies | None = None
    perplexity: Perplexities | None = None
    absent: dict[str, str] = {}
    """Why a part was not compared, by the name of its field."""
