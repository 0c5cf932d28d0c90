"""Token stores for tests, without files."""

from __future__ import annotations

from collections.abc import Sequence

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.tokens.store import Encoded, Example, TokenStore


def encoded(encoder: DialogueEncoder, dialogues: Sequence[Dialogue]) -> TokenStore:
    """Return the dialogues as training sees them."""
    examples = [one for one in encoder.encode_all(dialogues) if isinstance(one, Encoded)]
    return TokenStore.build(zip(dialogues, examples, strict=True))


def laid_out(examples: Sequence[Example]) -> TokenStore:
    """Return a store of examples that come from no real dialogue."""
    placeholder = Dialogue((Turn("user", "-"),))
    return TokenStore.build(
        (placeholder, Encoded([example], len(example.input_ids))) for example in examples
    )
