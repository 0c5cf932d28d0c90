"""Real chat templates, in the shapes that the known model families use, are rendered faithfully or refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from convo_cli.data.dialogue import Dialogue, Turn, as_messages
from convo_cli.data.store import ASSISTANT_TARGET, USER_TARGET
from convo_cli.errors import DataError, ModelError
from convo_cli.text import native
from convo_cli.text.contract import load_encoder, save_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.native import NativeTemplate
from convo_cli.text.template import make_template
from tests.strategies import texts

TEMPLATES = Path(__file__).parents[2] / "fixtures" / "chat_templates"


@dataclass(frozen=True)
class Family:
    """A chat template, the tokens of its tokenizer, and what its speakers are to learn to say around their text."""

    template: str
    tokens: tuple[str, ...]
    eos: str
    answer: str
    question: str
    bos: str | None = None
    eats_spaces: bool = False
    """The role tokens swallow the white space after them."""
    unmarked: tuple[str, ...] = ()
    """Tokens that the tokenizer has, but does not call special."""
    has_system: bool = True
    is_alternating: bool = False


FAMILIES = {
    "llama3": Family(
        template="llama3",
        tokens=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        answer="{}<|eot_id|>",
        question="{}<|eot_id|>",
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
    "phi": Family(
        template="phi",
        tokens=("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        eos="<|endoftext|>",
        answer="{}<|end|>",
        question="{}<|end|>",
        eats_spaces=True,
    ),
    "zephyr": Family(
        template="zephyr", tokens=("<s>", "</s>"), bos="<s>", eos="</s>", answer="{}</s>", question="{}</s>"
    ),
}


@pytest.fixture(scope="module")
def make_tokenizer(sample_dialogues):
    """A maker of byte-level BPE tokenizers, in the way of GPT-2, with the tokens and the template of a family."""
    from transformers import PreTrainedTokenizerFast

    corpus = [turn.text for dialogue in sample_dialogues for turn in dialogue.turns]

    def make(family: Family, chat_template: str | None = None, corpus: list[str] = corpus) -> Any:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        backend.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet))
        backend.add_special_tokens(
            [AddedToken(token, special=True, rstrip=family.eats_spaces, normalized=False) for token in family.tokens]
        )
        backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.unmarked])
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            bos_token=family.bos,
            eos_token=family.eos,
            chat_template=chat_template or (TEMPLATES / f"{family.template}.jinja").read_text(encoding="utf-8"),
            clean_up_tokenization_spaces=False,
        )

    return make


def _encoder(tokenizer, max_length=4096) -> DialogueEncoder:
    return DialogueEncoder(tokenizer, make_template("native", tokenizer), max_length=max_length)


@pytest.fixture(scope="module")
def encoders(make_tokenizer):
    return {name: _encoder(make_tokenizer(family)) for name, family in FAMILIES.items()}


@st.composite
def _dialogues(draw, family: Family, *, look_alikes: bool = False) -> Dialogue:
    spoken, tokens = texts(look_alikes=look_alikes), (*family.tokens, *family.unmarked)
    if look_alikes:
        spoken = st.one_of(spoken, st.sampled_from(tokens).map("a{} b".format))
    else:  # hypothesis also tries the strings that it finds in the code
        spoken = spoken.filter(lambda text: not any(token in text for token in tokens))
    if family.is_alternating:
        roles = ["user", "assistant"] * draw(st.integers(1, 4))
        roles = roles[: draw(st.integers(1, len(roles)))]
    else:
        roles = draw(st.lists(st.sampled_from(["user", "assistant"]), min_size=1, max_size=7))
    if family.has_system and draw(st.booleans()):
        roles = ["system", *roles]
    turns = tuple(Turn(role, draw(spoken), role == "system" or draw(st.booleans())) for role in roles)
    return Dialogue(turns, 1)


def _theirs(tokenizer, turns, *, prompt=False):
    return tokenizer.apply_chat_template(
        as_messages(turns), tokenize=True, return_dict=False, add_generation_prompt=prompt
    )


def _with_template(tokenizer, encoder):
    """The tokenizer as it is saved beside the model: with the template that convo renders."""
    tokenizer.chat_template = encoder.template.chat_template
    return tokenizer


every_family = pytest.mark.parametrize("name", FAMILIES)


@every_family
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_training_reads_what_transformers_renders(encoders, name, data):
    encoder = encoders[name]
    dialogue = data.draw(_dialogues(FAMILIES[name]))
    (example,) = encoder.encode([dialogue])[0]
    plain = _with_template(encoder.tokenizer, encoder)
    assert example.input_ids.tolist() == _theirs(plain, dialogue.turns)
    if dialogue.turns[-1].role == "user":
        assert encoder.prompt(dialogue.turns, max_new_tokens=1).ids == _theirs(plain, dialogue.turns, prompt=True)
    encoder.require_parity(dialogue.turns)


@every_family
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_prompt_of_every_reply_is_how_its_training_example_begins(encoders, name, data):
    encoder = encoders[name]
    turns = data.draw(_dialogues(FAMILIES[name], look_alikes=True)).turns
    (example,) = encoder.encode([Dialogue(turns)])[0]
    for index, turn in enumerate(turns):
        if turn.role == "assistant" and any(earlier.role == "user" for earlier in turns[:index]):
            prompt = encoder.prompt(turns[:index], max_new_tokens=1).ids
            assert example.input_ids[: len(prompt)].tolist() == prompt
            if turn.is_trained:
                assert example.targets[len(prompt)] == ASSISTANT_TARGET
                assert example.targets[len(prompt) - 1] != ASSISTANT_TARGET


@every_family
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_targets_are_each_trained_turns_text_and_its_end_token(encoders, name, data):
    family, encoder = FAMILIES[name], encoders[name]
    dialogue = data.draw(_dialogues(family))
    (example,) = encoder.encode([dialogue])[0]
    for role, kind, says in (("assistant", ASSISTANT_TARGET, family.answer), ("user", USER_TARGET, family.question)):
        said = [
            # Where the template puts the system text into the question, the question's own text follows two newlines.
            says.format(turn.text).lstrip(" " if before is not None and before.role == "system" else "")
            for before, turn in zip([None, *dialogue.turns], dialogue.turns, strict=False)
            if turn.role == role and turn.is_trained
        ]
        expected = [token for text in said for token in encoder.tokenizer.encode(text, add_special_tokens=False)]
        assert example.input_ids[example.targets == kind].tolist() == expected


@every_family
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_text_that_spells_a_token_of_the_template_is_text(encoders, name, data):
    encoder = encoders[name]
    dialogue = data.draw(_dialogues(FAMILIES[name], look_alikes=True))
    (example,) = encoder.encode([dialogue])[0]
    pieces = encoder.template.render(dialogue.turns)
    assert sum(encoder.is_special(int(token)) for token in example.input_ids) == sum(p.is_special for p in pieces)
    assert "".join(piece.text for piece in pieces) == encoder.tokenizer.apply_chat_template(
        as_messages(dialogue.turns), chat_template=encoder.template.chat_template, tokenize=False
    )


@every_family
def test_a_saved_folder_renders_what_training_rendered(encoders, name, tmp_path, sample_dialogues):
    from transformers import AutoTokenizer

    encoder = encoders[name]
    save_encoder(encoder, tmp_path, spiece=None)
    reloaded, plain = load_encoder(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert reloaded.stop_ids == encoder.stop_ids
    for dialogue in sample_dialogues[:10]:
        turns = dialogue.turns[-2:]
        (ours,), (theirs,) = encoder.encode([Dialogue(turns)])[0], reloaded.encode([Dialogue(turns)])[0]
        assert ours.input_ids.tolist() == theirs.input_ids.tolist() == _theirs(plain, turns)
        assert ours.targets.tolist() == theirs.targets.tolist()


@every_family
def test_a_reply_stops_at_the_end_token_and_shows_none(encoders, name):
    family, encoder = FAMILIES[name], encoders[name]
    end = family.answer.format("")
    ids = encoder.tokenizer.encode(family.answer.format("Hi there"), add_special_tokens=False)
    assert ids[-1] == encoder.stop_ids[0] == encoder.tokenizer.convert_tokens_to_ids(end.strip())
    assert encoder.tokenizer.convert_tokens_to_ids(family.eos) in encoder.stop_ids
    assert encoder.decode(ids).strip() == "Hi there"
    stream = encoder.stream()
    assert "".join([*map(stream.push, ids), stream.finish()]) == encoder.decode(ids)


OPENINGS = {
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday is ",
    "mistral": "<s>",
    "gemma": "<bos><start_of_turn>",
    "qwen": "<|im_start|>system\nYou answer briefly.<|im_end|>\n<|im_start|>",
    "phi": "<|",
    "zephyr": "<|",
}


@pytest.mark.parametrize("name", OPENINGS)
def test_every_window_of_a_long_dialogue_begins_as_a_dialogue_does(encoders, name):
    cut = _encoder(encoders[name].tokenizer, max_length=110)
    plain = _with_template(cut.tokenizer, cut)
    turns = tuple(Turn(("user", "assistant")[k % 2], f"This is what is said in turn {k}.") for k in range(24))
    windows = cut.encode([Dialogue(turns)])[0]
    num_from_a_question = 0
    for window in windows:
        ids = window.input_ids.tolist()
        text = cut.tokenizer.decode(ids)
        assert text.startswith(OPENINGS[name])
        first = int(text.split("in turn ")[1].split(".")[0])
        header = text.split("This")[0]
        assert ("user" in header or "[INST]" in header) == (turns[first].role == "user")
        if turns[first].role == "user":
            assert ids == _theirs(plain, turns[first:])[: len(ids)]
            num_from_a_question += 1
    assert len(windows) > 2
    assert num_from_a_question > 1
    whole = encoders[name].encode([Dialogue(turns)])[0][0]
    for kind in (ASSISTANT_TARGET, USER_TARGET):
        parts = [window.input_ids[window.targets == kind] for window in windows]
        assert np.concatenate(parts).tolist() == whole.input_ids[whole.targets == kind].tolist()


@pytest.mark.parametrize(
    ("name", "roles", "says"),
    [
        ("gemma", ["system", "user", "assistant"], "There is no system here"),
        ("gemma", ["user", "user", "assistant"], "Users and models speak in turns"),
        ("mistral", ["assistant", "user", "assistant"], "It is the turn of the user, not of the assistant"),
        ("mistral", ["user", "assistant", "assistant"], "It is the turn of the user, not of the assistant"),
    ],
)
def test_a_dialogue_that_the_template_refuses_is_named_with_its_line_and_the_templates_words(
    encoders, name, roles, says
):
    dialogue = Dialogue(tuple(Turn(role, "Hi") for role in roles), line=17, file="train.jsonl")
    encoders[name].require_parity(dialogue.turns)
    with pytest.raises(DataError) as caught:
        encoders[name].encode([dialogue])
    assert caught.value.message == f"train.jsonl:17: the chat template refuses such a dialogue: {says}"
    assert "dialogue.template" in str(caught.value.hint)


def test_a_text_that_the_template_changes_is_named_with_its_line(make_tokenizer):
    source = (TEMPLATES / "qwen.jinja").read_text(encoding="utf-8")
    encoder = _encoder(make_tokenizer(FAMILIES["qwen"], source.replace("message.content", "message.content[:20]")))
    fine = Dialogue((Turn("user", "short"), Turn("assistant", "answer")), line=1)
    cut = Dialogue((Turn("user", "short"), Turn("assistant", "a much longer answer")), line=2)
    assert encoder.encode([fine])
    encoder.encode([cut])
    with pytest.raises(DataError, match="line 3: the chat template changes the text of a turn"):
        encoder.encode([Dialogue((*cut.turns, Turn("user", "a question that is longer than that")), line=3)])


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (CHATML.replace("<|im_end|>", "") + PROMPT, "ends an assistant turn without a special token"),
        (CHATML, r"makes the model say '<\|im_start\|>assistant\\n' before its reply"),
        (CHATML + PROMPT.replace("assistant\n", "assistant\n<think>\n"), "renders a reply otherwise than after its"),
        (
            CHATML.replace("{{ m.content", "{% if loop.last and m.role == 'assistant' %}<think>{% endif %}{{ m.content")
            + PROMPT,
            "makes the model say '<think>' before its reply",
        ),
        (CHATML.replace("m.content", "m.content | upper") + PROMPT, "changes the text of a turn"),
        (CHATML.replace("in messages", "in messages[-1:]") + PROMPT, "does not render every turn once and in order"),
        (CHATML.replace("m.content", "m.content + m.content") + PROMPT, "does not render every turn once"),
        (CHATML.replace("endfor", "endfour") + PROMPT, "refuses such a dialogue: Encountered unknown tag 'endfour'"),
        (CHATML.replace("m.content", "m.content.text.strip()") + PROMPT, "refuses such a dialogue: .*has no attribute"),
        (CHATML.replace("m.content", "m.content + 1") + PROMPT, "refuses such a dialogue: can only concatenate str"),
        ("{{ strftime_now(style) }}" + CHATML + PROMPT, "asks for the time"),
    ],
)
def test_a_template_that_cannot_be_trained_on_is_refused_with_the_reason(make_tokenizer, source, says):
    tokenizer = make_tokenizer(FAMILIES["qwen"], source)
    with pytest.raises(ModelError, match=f"template native cannot be used: the chat template {says}") as caught:
        NativeTemplate(tokenizer)
    assert caught.value.hint == "set dialogue.template: turns or chatml"


def test_a_tokenizer_that_joins_the_prompt_with_the_reply_is_refused_and_keeps_the_prompt_whole(make_tokenizer):
    encoder = _encoder(make_tokenizer(FAMILIES["qwen"], (CHATML + PROMPT).replace("\n", " ")))
    turns = [Turn("user", "What is this?"), Turn("assistant", "What you see.")]
    with pytest.raises(ModelError, match="template native does not fit this tokenizer: at token "):
        encoder.require_parity(turns)
    ids = encoder.encode([Dialogue(tuple(turns))])[0][0].input_ids.tolist()
    prompt = encoder.prompt(turns[:1], max_new_tokens=1).ids
    assert ids[: len(prompt)] == prompt
    assert encoder.decode(ids[len(prompt) :]) == "What you see. "


def test_a_tokenizer_that_marks_the_start_of_every_text_marks_no_word_within_it(make_tokenizer):
    tokenizer = make_tokenizer(FAMILIES["zephyr"])
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Prepend("x")  # as SentencePiece models put a space before a text
    encoder = _encoder(tokenizer)
    turns = [Turn("user", "Hi"), Turn("assistant", "Hello")]
    encoder.require_parity(turns)
    (example,) = encoder.encode([Dialogue(tuple(turns))])[0]
    assert tokenizer.decode(example.input_ids) == "x<|user|>\nHi</s>x\n<|assistant|>\nHello</s>x\n"


def test_the_default_one_of_several_chat_templates_is_used(make_tokenizer):
    tokenizer = make_tokenizer(FAMILIES["qwen"])
    alone = NativeTemplate(tokenizer).chat_template
    tokenizer.chat_template = {"tool_use": "{{ messages }}", "default": alone}
    assert make_template("auto", tokenizer).chat_template == alone
    tokenizer.chat_template = {"tool_use": "{{ messages }}"}
    with pytest.raises(ModelError, match="has no chat template"):
        make_template("native", tokenizer)


def test_the_date_in_a_template_stays_that_of_the_first_day(make_tokenizer, tmp_path, monkeypatch):
    class Calendar(native.datetime):
        day = 1

        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, cls.day)

    monkeypatch.setattr(native, "datetime", Calendar)
    encoder = _encoder(make_tokenizer(FAMILIES["llama3"]))
    turns = [Turn("user", "Hi")]
    first = encoder.prompt(turns, max_new_tokens=1).ids
    assert "Today is 01 May 2031." in encoder.tokenizer.decode(first)
    save_encoder(encoder, tmp_path, spiece=None)
    Calendar.day = 2
    assert load_encoder(tmp_path).prompt(turns, max_new_tokens=1).ids == first
    assert "02 May 2031" in _encoder(make_tokenizer(FAMILIES["llama3"])).template.chat_template
