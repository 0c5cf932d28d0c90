"""Dialogue to ids and targets, and ids back to text: everything that touches a tokenizer after it is built.

Special tokens come from the template alone. The words of a turn are encoded as text, also where they spell
``<|end|>``. A text is encoded after the text before it, so that the ids are those of the whole rendering, but never
changes what came before: the ids of a prompt are always the first ids of the training example.

Shapes: an example is two arrays of length T.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from convo_cli.config.schema import LongTurns, TrainOn
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.problems import Problem, ProblemError
from convo_cli.errors import DataError, ModelError
from convo_cli.text.bounded.rendering import render_ids
from convo_cli.text.cutting import search
from convo_cli.text.pieces import Piece, Rendering, Template, special_tokens
from convo_cli.text.prompt import Prompt, fit_prompt
from convo_cli.text.streaming import StreamDecoder
from convo_cli.text.tokenizers.panics import no_panics
from convo_cli.text.tokenizers.plain_text import plain_text_backend
from convo_cli.text.tokenizers.vocabulary import TokenFinder
from convo_cli.tokens.store import Encoded, Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Rendered once: the special tokens of a template are those that it writes here.
_PROBE = (Turn("user", "a"), Turn("assistant", "b"))
_NO_IDS: Sequence[int] = ()


class DialogueEncoder:
    """Encodes dialogues under one template; `max_length` is the window in tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template, *, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.max_length = max_length
        marked = special_tokens(tokenizer)
        written = {piece.text for piece in template.render(_PROBE) if piece.is_special}
        self._special_ids = {token: (self._id_of(token),) for token in marked | written}
        self._finder = TokenFinder(self._special_ids)
        self._hidden_ids = frozenset(chain.from_iterable(self._special_ids.values()))
        # A copy: the tokenizer itself must go on reading special tokens, as `require_parity` and exports need it. The
        # unknown token is left to texts: it is the id of every text that the vocabulary cannot spell.
        self._backend = plain_text_backend(tokenizer, written - marked, (marked | written) - {tokenizer.unk_token})
        # Phi-3's role tokens take the white space after them, so training must not see that space either.
        self._space_eaters = {token.content for token in tokenizer.added_tokens_decoder.values() if token.rstrip}
        self.stop_ids = tuple(self._id_of(token) for token in template.stop_tokens)
        # Any id may pad: attention masks it, and it is no target. GPT-2 and its like have no token for it.
        pad = tokenizer.pad_token_id
        self.pad_id: int = self.stop_ids[0] if pad is None else int(pad)

    def encode(self, dialogues: Sequence[Dialogue], train_on: TrainOn = "assistant") -> list[list[Example]]:
        """The windows of each dialogue.

        DataError names the line of a dialogue that the template refuses, or that has a turn longer than the window.
        """
        found = self.encode_all(dialogues, train_on)
        for one in found:
            if isinstance(one, Problem):
                raise ProblemError(one)
        return [list(one.examples) for one in found if isinstance(one, Encoded)]

    def encode_all(
        self, dialogues: Iterable[Dialogue], train_on: TrainOn = "assistant", long_turns: LongTurns = "refuse"
    ) -> list[Encoded | Problem]:
        """The examples of each dialogue, or the problem for which it is refused."""
        # The windows of a long dialogue render the same texts again: each text is encoded once in a call.
        known: dict[str, Sequence[int]] = {}
        searches = [search(dialogue, train_on, self.max_length, long_turns) for dialogue in dialogues]
        found: dict[int, Encoded | Problem] = {}
        asked = {number: next(one) for number, one in enumerate(searches)}
        while asked:
            answers = self._render_all(list(asked.values()), known)
            for number, answer in zip(list(asked), answers, strict=True):
                try:
                    asked[number] = searches[number].send(answer)
                except StopIteration as end:
                    found[number] = end.value
                    del asked[number]
        return [found[number] for number in range(len(searches))]

    def prompt(self, turns: Sequence[Turn], *, max_new_tokens: int) -> Prompt:
        """The turns as a prompt that leaves room for the reply, dropping whole turns from the left where it must.

        The turns that stay are rendered as a dialogue of their own. System turns always stay. Raises DataError where
        the template refuses the turns, or the last turn alone does not fit.
        """
        return fit_prompt(turns, self._render_prompt, self.max_length, max_new_tokens)

    def is_special(self, token: int) -> bool:
        """True for the ids of special tokens, which stand for no text."""
        return token in self._hidden_ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a reply; special tokens are left out."""
        # By id, not by `skip_special_tokens`: templates also write tokens that the tokenizer does not call special. The
        # clean-up would take the space before a full stop or "n't" out of what the model wrote.
        spoken = [token for token in ids if token not in self._hidden_ids]
        with no_panics(self.tokenizer):
            return str(self.tokenizer.decode(spoken, clean_up_tokenization_spaces=False))

    def text_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text as a speaker's words, without anything of the template."""
        return self._encode_texts(list(texts))

    def reads_back(self, text: str) -> str:
        """The text as it is decoded from its ids; most tokenizers change nothing."""
        return self.decode(self._encode_text(text))

    def stream(self) -> StreamDecoder:
        """A decoder for one reply that arrives token by token."""
        return StreamDecoder(self)

    def require_parity(self, turns: Sequence[Turn]) -> None:
        """Prove that plain transformers renders the same ids; ModelError with the first difference where it does not.

        Dialogues whose text spells a special token are not compared: there transformers reads a token where convo
        reads text. Those that the template refuses are left to `encode`, which knows their line.
        """
        if any(self._finder.find(turn.text) for turn in turns):
            return
        try:
            pieces = self.template.render(turns)
        except DataError:
            return
        # Nothing is shared: transformers renders the dialogue by Jinja and encodes it in one call.
        ours = [token for ids in self._encode_pieces([pieces], {})[0] for token in ids]
        theirs = render_ids(self.tokenizer, self.template.chat_template, turns)
        if ours != theirs:
            where = next((k for k, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
            mine, other = (self.tokenizer.convert_ids_to_tokens(list(ids)[where : where + 4]) for ids in (ours, theirs))
            raise ModelError(
                f"template {self.template.name} does not fit this tokenizer: at token {where} training would see "
                f"{mine}, but transformers' apply_chat_template gives {other}",
                hint="set dialogue.template: turns",
            )

    def _render_all(
        self, dialogues: Sequence[Sequence[Turn]], known: dict[str, Sequence[int]]
    ) -> list[Rendering | DataError]:
        """Each dialogue as its template renders it; ``known`` are the ids of texts that were encoded before."""
        rendered = self.template.render_all(dialogues)
        accepted = iter(self._encode_pieces([pieces for pieces in rendered if isinstance(pieces, list)], known))
        return [Rendering(pieces, next(accepted)) if isinstance(pieces, list) else pieces for pieces in rendered]

    def _render_prompt(self, turns: Sequence[Turn]) -> Rendering | DataError:
        try:
            pieces = self.template.render(turns, for_reply=True)
        except DataError as error:
            return error
        return Rendering(pieces, self._encode_pieces([pieces], {})[0])

    def _encode_pieces(
        self, rendered: Sequence[Sequence[Piece]], known: dict[str, Sequence[int]]
    ) -> list[list[Sequence[int]]]:
        """The ids of every piece of every dialogue, encoded in one batch but for the texts that are known."""
        contexts = [self._contexts(pieces) for pieces in rendered]
        texts = [text for text in dict.fromkeys(chain.from_iterable(contexts)) if text not in known]
        known.update(zip(texts, self._encode_texts(texts), strict=True))
        return [self._piece_ids(*pair, known) for pair in zip(rendered, contexts, strict=True)]

    def _contexts(self, pieces: Sequence[Piece]) -> list[str]:
        """For each piece the text from the last special token to the piece's end; '' for a special token."""
        # A tokenizer cuts a text at its special tokens first, so the ids of what stands between two of them depend on
        # nothing outside.
        contexts, context, eats_space = [], "", False
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
        """The ids that each piece adds to those of its context."""
        results = list[Sequence[int]]()
        start, before = 0, _NO_IDS  # where in the context encoding begins, and the ids since then
        for piece, context in zip(pieces, contexts, strict=True):
            if piece.is_special:
                start, before = 0, _NO_IDS
                results.append(self._special_ids[piece.text])
                continue
            ids = known[context] if start == 0 else self._encode_text(context[start:])
            if before and ids[: len(before)] != before:
                # The tokenizer joins this text with the one before it. The ids of a prompt must not depend on its
                # reply, so this text begins again; `require_parity` refuses it where transformers then differs.
                start, before = len(context) - len(piece.text), _NO_IDS
                ids = self._encode_text(context[start:])
            results.append(ids[len(before) :] if before else ids)
            before = ids
        return results

    def _encode_texts(self, texts: list[str]) -> list[list[int]]:
        with no_panics(self.tokenizer):
            # The library spreads a batch over all cores; the fast form leaves out offsets, which nothing here reads.
            return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _encode_text(self, text: str) -> list[int]:
        with no_panics(self.tokenizer):
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _id_of(self, token: str) -> int:
        # For a token that it lacks, a tokenizer returns the id of its unknown token: only the way back tells.
        index = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(index, int) or self.tokenizer.convert_ids_to_tokens(index) != token:
            raise ModelError(
                f"the tokenizer has no token {token}, which template {self.template.name} needs",
                hint="this folder was not made by convo, or its tokenizer was replaced",
            )
        return index
