"""The interface of an export format: what it holds, how it is written, what runs it.

A format is a module with the three functions of `Format`; `formats.FORMATS` lists them. The proof
(`proof/`) opens what was written in the format's own runtime, in a bounded process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from convo_cli.events import Emit
from convo_cli.export.tokenizer_kinds import TokenizerKind

if TYPE_CHECKING:
    from convo_cli.export.source import Source

TEMPLATE_FILE = "chat_template.jinja"
CARD_FILE = "README.md"
TIE = 1e-3
"""Two logits that are closer are a tie for a runtime that computes in fp32."""

Dtype = Literal["fp32", "fp16", "bf16", "q8_0", "int8"]
"""How an export stores weights; only fp32 holds those of a checkpoint exactly.

q8_0 are the 8-bit blocks of llama.cpp, int8 the 8-bit rows of CTranslate2.
"""


@dataclass(frozen=True, slots=True)
class OtherReading:
    """A text or prompt that the runtime reads with other ids than the checkpoint."""

    texts: Sequence[str]
    """The text, or those of the prompt's turns."""
    is_prompt: bool
    ids: Sequence[int]
    wanted: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What convo has to know of a format before it loads a model."""

    summary: str
    """One line for `--help` and the docs."""
    usage: str
    """Markdown of the model card that shows how to run the export, for `str.format`.

    Fields: ``stop`` (a Python literal on one line, for code), ``max_length``, ``num_embeddings``,
    and ``template`` and ``base``, which are Markdown with their own backquotes. The headings of
    the card are of the second level, so those of this text are of the third.
    """
    weights: str = ""
    """Pattern of the names of its files of weights, which no other format has."""
    other_names: tuple[str, ...] = ()
    """What other programs call it, for a suggestion to a user who gives such a name."""
    dtypes: tuple[Dtype, ...] = ("fp32",)
    """The first is the default."""
    architectures: frozenset[str] | None = None
    """The values of `model_type` that it holds; None for all."""
    tokenizers: frozenset[TokenizerKind] | None = None
    inexact: Callable[[Mapping[str, Any]], str | None] | None = None
    """Return from tokenizer.json why the runtime reads some texts differently, or None.

    The receipt then states how many texts differ. With any other tokenizer, a text with other ids
    is an error.
    """
    explains: Callable[[Mapping[str, Any], OtherReading], bool] | None = None
    """Return from tokenizer.json whether a text is one of those that ``inexact`` names.

    Any other text with other ids is an error, as a damaged vocabulary gives it.
    """
    tie: Callable[[Mapping[str, Any]], float] = lambda _: TIE
    """Return from config.json which difference of two logits the runtime's rounding may decide."""
    extra: str | None = None
    """The extra of convo that writes it, and the modules that this installs."""
    writes_with: tuple[str, ...] = ()
    runs_with: tuple[str, ...] = ()
    """The modules that open it for the receipt; without one of them it is not checked."""
    how_to_install_runtime: str | None = None
    """A command, such as ``pip install xllamacpp``."""
    merges: bool = True
    """An adapter is merged into its base first; else only an adapter can be exported."""
    shards: bool = False
    """Writes files of weights of at most `Source.max_shard_bytes`."""
    library: str | None = None
    """``library_name`` of the hub's metadata, such as ``transformers``; None if none fits."""
    tags: tuple[str, ...] = ()
    """Tags of the hub's metadata, besides those of every export."""
    server: str | None = None
    """A command that serves the export to OpenAI's client on port 8000; None if there is none.

    The model card shows it, with the client. Its field is ``max_length``.
    """
    commands: tuple[str, ...] = ()
    """Commands that run the export, printed after it, for `str.format`.

    Fields: ``folder`` as typed into a shell; ``name``, of lower-case letters, digits and dashes;
    ``max_length``.
    """
    remark: str | None = None
    """A sentence that is printed after the export."""
    uses_generation_config: bool = False
    """Greedy replies of the runtime obey the folder's generation_config.json."""
    objection: Callable[[Mapping[str, Any]], str | None] | None = None
    """Return from config.json why the format cannot hold a model of a supported architecture."""
    attention_window: Callable[[Mapping[str, Any]], int | None] | None = None
    """Return from config.json the length from which the runtime computes other values, or None.

    A model attends to so many tokens at most, and the runtime to all. It is refused if its
    dialogues may be longer.
    """
    tokenizer_objection: Callable[[Mapping[str, Any]], str | None] | None = None
    """Return from tokenizer.json why the format cannot hold a tokenizer of a supported kind."""


class Runtime(Protocol):
    """An export, opened by the program that it is for."""

    name: str
    """For people, such as ``llama.cpp``."""
    version: str
    """Package and version, such as ``xllamacpp 2026.10.11549``."""

    @property
    def stop_ids(self) -> Sequence[int]:
        """Return the ids that end a reply, as the runtime read them from the export."""

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of a text that spells no special token, without tokens around it."""

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the ids of a prompt for the next reply, by the chat template of the export."""

    def greedy(self, ids: Sequence[int], num_tokens: int) -> list[int]:
        """Return the most likely ids after a prompt, at most ``num_tokens``, with the end token."""

    def nll(self, ids: Sequence[int], start: int) -> list[float]:
        """Return the nats of ``ids[start:]``, each after all ids before it."""


class Format(Protocol):
    """A format of `convo export`; its module has these functions."""

    def about(self) -> About:
        """Return what the format needs and holds; imports nothing heavy."""

    def write(self, source: Source, folder: Path, dtype: Dtype, emit: Emit) -> None:
        """Write the files of the format into an empty folder."""

    def open_runtime(self, folder: Path, base: Path | None) -> Runtime:
        """Open the files in the runtime; ``base`` is the folder of an adapter's base.

        This runs in a process of its own, with limits and without a network.
        """
