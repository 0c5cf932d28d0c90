"""README.md of an export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli import __version__
from convo_cli.export.card.markdown import as_code, as_markdown
from convo_cli.export.format import CARD_FILE, About
from convo_cli.export.proof.receipt import Receipt
from convo_cli.export.source import Source
from convo_cli.model.adapters.lora import adapter_of
from convo_cli.model.create import num_embeddings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HEAD = """\
---
library_name: {library}
pipeline_tag: text-generation
tags: [conversational, convo]
---

# {title}

A multi-turn conversation model trained with [convo](https://pypi.org/project/convo-cli/) {version}.

"""
_TAIL = """
Template `{template}`; a reply ends with {stop}; trained on sequences of at most {max_length}
tokens.
"""


def write_card(
    folder: Path, title: str, name: str, about: About, source: Source, receipt: Receipt
) -> None:
    """Write the card of an export into its folder."""
    encoder, model = source.generator.encoder, source.generator.model
    head = _HEAD.format(
        library="peft" if name == "adapter" else "transformers",
        title=as_markdown(title),
        version=__version__,
    )
    facts = {
        "template": encoder.template.name,
        "stop": as_code(encoder.template.stop_tokens[0]),
        "max_length": encoder.max_length,
        "base": described_base(model),
        "num_embeddings": num_embeddings(model),
    }
    card = head + about.usage.format(**facts) + _TAIL.format(**facts)
    (folder / CARD_FILE).write_text(card, encoding="utf-8", newline="\n")


def described_base(model: PreTrainedModel) -> str:
    """Return the base of an adapter for the model card: its hub id, or else the hashes of files."""
    if (adapter := adapter_of(model)) is None:
        return ""
    base = adapter.base
    if base.commit is not None and base.source is not None:
        return f"{as_code(base.source)} at commit {as_code(base.commit)}"
    files = (f"{as_code(name)} {digest}" for name, digest in sorted(base.sha256.items()))
    return "the model with these files (SHA-256): " + ", ".join(files)
