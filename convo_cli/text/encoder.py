"""Encoder of dialogues into ids and targets, and decoder of ids into text.

Special tokens come only from the template. The words of a turn are encoded as text, even if they
spell ``<|end|>``. A text is encoded in the context of the text before it, so that the ids are those
of the whole rendering, but it never changes earlier ids: the ids of a prompt are always the first
ids of the training example.

Shapes: an example is two arrays of length T.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from convo_cli.config.schema import LongTurns, TrainOn
from convo_cli.data.dialogue import Dialogue, Turn, chunks
from convo_cli.data.problems import Problem, ProblemError
from convo_cli.errors import DataError, ModelError
from convo_cli.text.examples import run, search
from convo_cli.text.parity import prove_parity
from convo_cli.text.prompt import Prompt, fit_prompt
from convo_cli.text.streaming import StreamDecoder
from convo_cli.text.templates.pieces import Piece, Rendering, Template, special_tokens
from convo_cli.text.templates.turn_shapes import spoken_tokens
from convo_cli.text.tokenizers.panics import no_panics
from convo_cli.text.tokenizers.plain_text import has_first_space, plain_text_backend
from convo_cli.text.tokenizers.vocabulary import MARK, TokenFinder
from convo_cli.tokens.store import Encoded, Example

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_NO_IDS: Sequence[int] = ()


class DialogueEncoder:
    """Encodes dialogues with one template; `max_length` is the window in tokens."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, *, max_length: int
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        marked = special_tokens(tokenizer)
        written = set(template.written_tokens)
        self._special_ids = {token: (self._id_of(token),) for token in marked | written}
        self._finder = TokenFinder(self._special_ids)
        spoken = spoken_tokens(template.agreement)
        self._hidden_ids = frozenset(self._id_of(one) for one in self._special_ids.keys() - spoken)
        # A copy: the tokenizer itself must keep reading special tokens for `require_parity` and
        # exports. Texts may still yield the unknown token, the id of every text that the vocabulary
        # cannot spell.
        forbidden = (marked | written) - {tokenizer.unk_token}
        self._backend = plain_text_backend(tokenizer, written - marked, forbidden)
        self._first_backend = (
            plain_text_backend(tokenizer, written - marked, forbidden, begins_rendering=True)
            if has_first_space(tokenizer)
            else None
        )
        # Phi-3's role tokens absorb the white space after them, so training must not see it either.
        added = tokenizer.added_tokens_decoder.values()
        self._space_eaters = {token.content for token in added if token.rstrip}
        self.stop_ids = tuple(self._id_of(token) for token in template.stop_tokens)
        # Any id may pad, because attention masks it and it is never a target. GPT-2 has no padding
        # token.
        pad = tokenizer.pad_token_id
        self.pad_id: int = self.stop_ids[0] if pad is None else int(pad)

    def encode(
        self, dialogues: Sequence[Dialogue], train_on: TrainOn = "assistant"
    ) -> list[list[Example]]:
        """Return the windows of each dialogue.

        DataError names the line of a dialogue that the template refuses or that has a turn longer
        than the window.
        """
        found = self.encode_all(dialogues, train_on)
        for one in found:
            if isinstance(one, Problem):
                raise ProblemError(one)
        return [list(one.examples) for one in found if isinstance(one, Encoded)]

    def encode_all(
        self,
        dialogues: Iterable[Dialogue],
        train_on: TrainOn = "assistant",
        long_turns: LongTurns = "refuse",
    ) -> list[Encoded | Problem]:
        """Return the examples of each dialogue, or the problem for which it is refused."""
        found = list[Encoded | Problem]()
        for chunk in chunks(dialogues):
            # The windows of a long dialogue repeat texts, so each text of a chunk is encoded once.
            known: dict[str, Sequence[int]] = {}
            searches = [search(one, train_on, self.max_length, long_turns) for one in chunk]
            found += run(searches, partial(self._render_all, known=known))
        return found

    def prompt(self, turns: Sequence[Turn], *, max_new_tokens: int) -> Prompt:
        """Return the turns as a prompt that leaves room for the reply.

        If they are too long, whole turns are dropped from the start, but no system turns. The
        remaining turns are rendered as a dialogue of their own. Raises DataError if the template
        refuses the turns or the last turn alone does not fit.
        """
        return fit_prompt(turns, self._render_prompt, self.max_length, max_new_tokens)

    def is_special(self, token: int) -> bool:
        """Return whether the id is a special token, which has no text."""
        return token in self._hidden_ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of a reply; special tokens are left out."""
        # By id, not by `skip_special_tokens`: templates also write tokens that the tokenizer does
        # not call special. Without clean-up, which would remove spaces that the model wrote before
        # a full stop or "n't".
        spoken = [token for token in ids if token not in self._hidden_ids]
        with no_panics(self.tokenizer):
            return str(self.tokenizer.decode(spoken, clean_up_tokenization_spaces=False))

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text as a speaker's words, without the template."""
        return self._batch_ids(self._backend, texts)

    def reads_back(self, text: str) -> str:
        """Encode and decode a text; most tokenizers return it unchanged."""
        return self.decode(self._encode_text(text))

    def stream(self) -> StreamDecoder:
        """Return a decoder for one reply that arrives token by token."""
        return StreamDecoder(self)

    def require_parity(self, turns: Sequence[Turn]) -> None:
        """Prove that plain transformers renders the same ids.

        ModelError names the first difference. Dialogues whose text spells a special token are not
        compared, because transformers reads it as a token and convo as text. Dialogues that the
        template refuses are left to `encode`, which knows their line.
        """
        if not any(self._finder.find(turn.text) for turn in turns):
            prove_parity(self, turns)

    def render_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Return the ids of a dialogue; DataError if the template refuses it."""
        pieces = self.template.render(turns)
        return list(chain.from_iterable(self._encode_pieces([pieces], {})[0]))

    def _render_all(
        self, dialogues: Sequence[Sequence[Turn]], known: dict[str, Sequence[int]]
    ) -> list[Rendering | DataError]:
        """Render and encode each dialogue; ``known`` holds the ids of texts encoded before."""
        rendered = self.template.render_all(dialogues)
        accepted = [pieces for pieces in rendered if isinstance(pieces, list)]
        ids = iter(self._encode_pieces(accepted, known))
        return [
            Rendering(pieces, next(ids)) if isinstance(pieces, list) else pieces
            for pieces in rendered
        ]

    def _render_prompt(self, turns: Sequence[Turn]) -> Rendering | DataError:
        try:
            pieces = self.template.render(turns, for_reply=True)
        except DataError as error:
            return error
        return Rendering(pieces, self._encode_pieces([pieces], {})[0])

    def _encode_pieces(
        self, rendered: Sequence[Sequence[Piece]], known: dict[str, Sequence[int]]
    ) -> list[list[Sequence[int]]]:
        """Return the ids of every piece; texts that are not ``known`` are encoded in one batch."""
        contexts = [self._contexts(pieces) for pieces in rendered]
        texts = [text for text in dict.fromkeys(chain.from_iterable(contexts)) if text not in known]
        firsts = [text for text in texts if text.startswith(MARK)]
        if firsts and self._first_backend is not None:
            spoken = [text.removeprefix(MARK) for text in firsts]
            known.update(zip(firsts, self._batch_ids(self._first_backend, spoken), strict=True))
            texts = [text for text in texts if text not in known]
        known.update(zip(texts, self.text_ids(texts), strict=True))
        return [self._piece_ids(*pair, known) for pair in zip(rendered, contexts, strict=True)]

    def _contexts(self, pieces: Sequence[Piece]) -> list[str]:
        """Return for each piece the text since the last special token; '' for a special token.

        A text with which the rendering begins has a mark before it, if it is encoded differently.
        """
        # A tokenizer first cuts a text at its special tokens, so ids between two of them depend on
        # nothing else.
        contexts, context, eats_space = [], MARK if self._first_backend else "", False
        for text, _, is_special, _ in pieces:
            if is_special:
                context, eats_space = "", text in self._space_eaters
            else:
                context = (context + text).lstrip() if eats_space else context + text
            contexts.append(context)
        return contexts

    def _piece_ids(
        self, pieces: Sequence[Piece], contexts: Sequence[str], known: Mapping[str, Sequence[int]]
    ) -> list[Sequence[int]]:
        """Return the ids that each piece adds to those of its context."""
        results = list[Sequence[int]]()
        start, before = 0, _NO_IDS  # where encoding begins in the context, and the ids since then
        for piece, context in zip(pieces, contexts, strict=True):
            if piece.is_special:
                start, before = 0, _NO_IDS
                results.append(self._special_ids[piece.text])
                continue
            ids = known[context] if start == 0 else self._encode_text(context[start:])
            if before and ids[: len(before)] != before:
                # The tokenizer merges this text with the one before it. The ids of a prompt must
                # not depend on its reply, so encoding restarts here; `require_parity` refuses the
                # template if transformers then differs.
                start, before = len(context) - len(piece.text), _NO_IDS
                ids = self._encode_text(context[start:])
            results.append(ids[len(before) :] if before else ids)
            before = ids
        return results

    def _batch_ids(self, backend: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        with no_panics(self.tokenizer):
            # The library encodes a batch on all cores; the fast method omits offsets.
            encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]

    def _encode_text(self, text: str) -> list[int]:
        with no_panics(self.tokenizer):
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _id_of(self, token: str) -> int:
        # A tokenizer returns the id of its unknown token for a missing one; converting back shows
        # that.
        index = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(index, int) or self.tokenizer.convert_ids_to_tokens(index) != token:
            raise ModelError(
                f"the tokenizer has no token {token}, which template {self.template.name} needs",
                hint="restore the tokenizer files of the folder, or export the model again",
            )
        return index
