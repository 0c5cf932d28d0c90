"""Chat templates like those of the known model families, with tokenizers that have their tokens.

The Jinja in tests/fixtures/chat_templates is convo's own; what it renders is what the family's
template renders: its tokens and role names, where the system text goes, what is stripped, which
orders of roles are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from convo_cli.data.dialogue import ROLES, Dialogue, Role, Turn
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.reply_modes import choose_native
from tests.strategies import texts

TEMPLATES = Path(__file__).parent / "fixtures" / "chat_templates"
DEEPSEEK_TOKENS = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
)


@dataclass(frozen=True)
class Family:
    """A chat template, the tokens of its tokenizer, and the targets around the speakers' text."""

    template: str
    tokens: tuple[str, ...]
    eos: str
    answer: str = ""
    question: str = "{}"
    bos: str | None = None
    eats_spaces: bool = False
    """The role tokens swallow the white space after them."""
    unmarked: tuple[str, ...] = ()
    """Tokens that the tokenizer has, but does not call special."""
    has_system: bool = True
    is_alternating: bool = False
    """Dialogues in which a speaker goes on are refused."""
    earlier_answer: str = ""
    """The targets of a reply that is not the last turn, if they differ."""
    is_one_by_one: bool = False
    """Earlier replies are rendered differently, so each reply is an example of its own."""
    says: str = ""
    """Why the family is refused."""

    @property
    def source(self) -> str:
        return (TEMPLATES / f"{self.template}.jinja").read_text(encoding="utf-8")

    @property
    def end_token(self) -> str:
        """What ends a reply."""
        return next(
            token
            for token in (*self.tokens, *self.unmarked)
            if self.answer.rstrip().endswith(token)
        )


FAMILIES = {
    "llama3": Family(
        template="llama3",
        tokens=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        answer="{}<|eot_id|>",
        question="{}<|eot_id|>",
    ),
    "llama2": Family(
        template="llama2",
        tokens=("<s>", "</s>"),
        bos="<s>",
        eos="</s>",
        answer=" {} </s>",
        question=" {}",
        is_alternating=True,
    ),
    "mistral": Family(
        template="mistral",
        tokens=("<s>", "</s>", "[INST]", "[/INST]"),
        bos="<s>",
        eos="</s>",
        answer=" {}</s>",
        question=" {} [/INST]",
        is_alternating=True,
    ),
    "mistral with [INST] as plain text": Family(
        template="mistral",
        tokens=("<s>", "</s>"),
        bos="<s>",
        eos="</s>",
        answer=" {}</s>",
        question=" {}",
        is_alternating=True,
    ),
    "mistral that folds the system text into the last user turn": Family(
        template="mistral-last",
        tokens=("<s>", "</s>", "[INST]", "[/INST]"),
        bos="<s>",
        eos="</s>",
        answer=" {}</s>",
        question=" {} [/INST]",
        has_system=False,
        is_alternating=True,
    ),
    "gemma3": Family(
        template="gemma3",
        tokens=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        answer="{}<end_of_turn>",
        question="{}<end_of_turn>",
        is_alternating=True,
    ),
    "gemma": Family(
        template="gemma",
        tokens=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        eos="<eos>",
        answer="{}<end_of_turn>",
        question="{}<end_of_turn>",
        has_system=False,
        is_alternating=True,
    ),
    "qwen": Family(
        template="qwen",
        tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        eos="<|im_end|>",
        answer="{}<|im_end|>",
        question="{}<|im_end|>",
    ),
    "chatml whose tokens are not called special": Family(
        template="qwen",
        tokens=("</s>",),
        unmarked=("<|im_start|>", "<|im_end|>"),
        eos="</s>",
        answer="{}<|im_end|>",
        question="{}<|im_end|>",
    ),
    "yi": Family(
        template="yi",
        tokens=("<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        bos="<|startoftext|>",
        eos="<|im_end|>",
        answer="{}<|im_end|>",
        question="{}<|im_end|>",
    ),
    "smollm2, whose bos begins every turn": Family(
        template="yi",
        tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        bos="<|im_start|>",
        eos="<|im_end|>",
        answer="{}<|im_end|>",
        question="{}<|im_end|>",
    ),
    "smollm3": Family(
        template="smollm3",
        tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        eos="<|im_end|>",
        answer="<|im_start|>assistant\n{}<|im_end|>\n",
        question="{}<|im_end|>",
    ),
    "phi": Family(
        template="phi",
        tokens=("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        eos="<|endoftext|>",
        answer="{}<|end|>",
        question="{}<|end|>",
        eats_spaces=True,
    ),
    "zephyr": Family(
        template="zephyr",
        tokens=("<s>", "</s>"),
        bos="<s>",
        eos="</s>",
        answer="{}</s>",
        question="{}</s>",
    ),
    "tulu": Family(
        template="tulu",
        tokens=("<|endoftext|>",),
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        answer="{}<|endoftext|>",
        is_alternating=True,
    ),
    "vicuna": Family(
        template="vicuna",
        tokens=("<s>", "</s>"),
        bos="<s>",
        eos="</s>",
        answer=" {}</s>",
        question=" {}",
    ),
    "deepseek": Family(
        template="deepseek",
        tokens=DEEPSEEK_TOKENS,
        bos=DEEPSEEK_TOKENS[0],
        eos=DEEPSEEK_TOKENS[1],
        answer="{}" + DEEPSEEK_TOKENS[1],
    ),
    "command-r": Family(
        template="command-r",
        tokens=(
            *("<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            *("<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        ),
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        answer="{}<|END_OF_TURN_TOKEN|>",
        question="{}<|END_OF_TURN_TOKEN|>",
        is_alternating=True,
    ),
    "granite": Family(
        template="granite",
        tokens=("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        bos="<|end_of_text|>",
        eos="<|end_of_text|>",
        answer="{}<|end_of_text|>",
        question="{}<|end_of_text|>",
    ),
}
"""Families whose replies are rendered as their generation prompts begin."""

CHANGING = {
    "mistral that folds the system text into the last user turn": Family(
        template="mistral-last",
        tokens=("<s>", "</s>", "[INST]", "[/INST]"),
        bos="<s>",
        eos="</s>",
        answer=" {}</s>",
        is_alternating=True,
        is_one_by_one=True,
    ),
    "qwen3, which thinks only in its last turn": Family(
        template="qwen3",
        tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        unmarked=("<think>", "</think>"),
        eos="<|im_end|>",
        answer="{}<|im_end|>",
        question="{}<|im_end|>",
        is_alternating=True,
        is_one_by_one=True,
    ),
    "deepseek r1, whose prompt opens a thought that no text has": Family(
        template="r1",
        tokens=DEEPSEEK_TOKENS,
        unmarked=("<think>", "</think>"),
        bos=DEEPSEEK_TOKENS[0],
        eos=DEEPSEEK_TOKENS[1],
        answer="{}" + DEEPSEEK_TOKENS[1],
    ),
    "harmony, where the model says its own channel": Family(
        template="harmony",
        tokens=("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
        eos="<|return|>",
        answer="{}<|return|>",
        earlier_answer="{}<|end|>",
        question="{}<|end|>",
        is_alternating=True,
    ),
}
"""Families whose earlier replies, or generation prompts, are rendered differently."""

REFUSED = {
    "nemotron, where the next header ends a turn": Family(
        template="nemotron",
        tokens=("<s>", "</s>", "<extra_id_0>", "<extra_id_1>"),
        bos="<s>",
        eos="</s>",
        says="ends an assistant turn without a special token, so the model would never learn to "
        "stop",
    ),
    "glm4, where the next header ends a turn": Family(
        template="glm4",
        tokens=("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        eos="<|endoftext|>",
        says="ends an assistant turn without a special token, so the model would never learn to "
        "stop",
    ),
    "falcon, which has no tokens for turns": Family(
        template="falcon",
        tokens=("<|endoftext|>",),
        eos="<|endoftext|>",
        says="ends an assistant turn without a special token, so the model would never learn to "
        "stop",
    ),
}


@lru_cache(maxsize=1)
def _byte_pairs(corpus: tuple[str, ...]) -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet)
    )
    return backend.to_str()


def family_tokenizer(
    family: Family, corpus: Iterable[Dialogue], chat_template: str | None = None
) -> Any:
    """A byte-level BPE tokenizer like GPT-2's, with the tokens and the template of a family."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(
        _byte_pairs(tuple(turn.text for dialogue in corpus for turn in dialogue.turns))
    )
    backend.add_special_tokens(
        [
            AddedToken(token, special=True, rstrip=family.eats_spaces, normalized=False)
            for token in family.tokens
        ]
    )
    backend.add_tokens(
        [AddedToken(token, special=False, normalized=False) for token in family.unmarked]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=family.bos,
        eos_token=family.eos,
        chat_template=chat_template or family.source,
        clean_up_tokenization_spaces=False,
    )


def native_encoder(
    tokenizer: Any,
    max_length: int = 4096,
    *,
    options: dict[str, Any] | None = None,
    keeps_reasoning: bool = False,
) -> DialogueEncoder:
    """The encoder of a new run."""
    template = choose_native(tokenizer, options or {}, keeps_reasoning=keeps_reasoning).template
    return DialogueEncoder(tokenizer, template, max_length=max_length)


@st.composite
def family_dialogues(draw: st.DrawFn, family: Family, *, look_alikes: bool = False) -> Dialogue:
    """Dialogues that the family's template allows."""
    spoken, tokens = texts(look_alikes=look_alikes), (*family.tokens, *family.unmarked)
    if look_alikes:
        spoken = st.one_of(
            spoken, st.sampled_from(tokens), st.sampled_from(tokens).map("a{} b".format)
        )
    else:  # hypothesis also tries the strings that it finds in the code
        spoken = spoken.filter(lambda text: not any(token in text for token in tokens))
    roles: list[Role]
    if family.is_alternating:
        roles = ["user", "assistant"] * draw(st.integers(1, 4))
        roles = roles[: draw(st.integers(1, len(roles)))]
    else:
        roles = draw(st.lists(st.sampled_from(ROLES[1:]), min_size=1, max_size=7))
    if family.has_system and draw(st.booleans()):
        roles = ["system", *roles]
    turns = tuple(
        Turn(role, draw(spoken), role == "system" or draw(st.booleans())) for role in roles
    )
    return Dialogue(turns, 1)
