"""Chat templates of the known model families are rendered faithfully, or refused by name.

tests/laws checks for every family what holds for all dialogues.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from datetime import datetime
from functools import partial

import numpy as np
import pytest
from tokenizers import normalizers

from convo_cli.data.dialogue import Dialogue, Turn, as_messages
from convo_cli.errors import DataError, ModelError
from convo_cli.text.contract import load_encoder, save_encoder
from convo_cli.text.templates.reply_modes import choose_native
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers import chat_template as chat_template_source
from convo_cli.tokens.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET
from convo_cli.wording import quoted
from tests.families import CHANGING, FAMILIES, REFUSED, family_tokenizer, native_encoder

every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def make_tokenizer(sample_dialogues):
    return partial(family_tokenizer, corpus=sample_dialogues)


@pytest.fixture(scope="module")
def encoders(make_tokenizer):
    return {name: native_encoder(make_tokenizer(family)) for name, family in FAMILIES.items()}


def _theirs(tokenizer, turns):
    return tokenizer.apply_chat_template(as_messages(turns), return_dict=False)


def _with_template(tokenizer, encoder):
    """The tokenizer as it is saved beside the model: with the template that convo renders."""
    tokenizer.chat_template = encoder.template.chat_template
    return tokenizer


@every_family
def test_a_reply_stops_at_the_end_token_and_shows_none(encoders, name):
    family, encoder = FAMILIES[name], encoders[name]
    end = encoder.tokenizer.convert_tokens_to_ids(family.end_token)
    reply = family.answer[family.answer.index("{}") :].format("Hi there")
    ids = encoder.tokenizer.encode(reply, add_special_tokens=False)
    assert end in ids
    assert encoder.stop_ids == tuple(
        dict.fromkeys([end, encoder.tokenizer.convert_tokens_to_ids(family.eos)])
    )
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
    "llama2": "<s>",
    "yi": "<|im_start|>",
    "smollm2, whose bos begins every turn": "<|im_start|>",
    "smollm3": "<|im_start|>system\n## Metadata\n\nToday: ",
    "deepseek": "<｜begin▁of▁sentence｜>",
    "command-r": "<BOS_TOKEN><|START_OF_TURN_TOKEN|>",
    "granite": "<|start_of_role|>system<|end_of_role|>Knowledge ends in April 2024.\n",
    "tulu": "<|endoftext|><|",
    "vicuna": "<s>A curious person talks with a patient assistant.",
}


@pytest.mark.parametrize("name", [name for name in OPENINGS if name != "vicuna"])
def test_every_window_of_a_long_dialogue_begins_as_a_dialogue_does(encoders, name):
    turns = tuple(
        Turn(("user", "assistant")[k % 2], f"This is what is said in turn {k}.") for k in range(24)
    )
    (answer_first,) = encoders[name].template.render_all([turns[1:]])
    speakers = set()
    for max_length in (110, 130, 150):
        cut = native_encoder(encoders[name].tokenizer, max_length)
        plain = _with_template(cut.tokenizer, cut)
        for window in cut.encode([Dialogue(turns)])[0]:
            ids = window.input_ids.tolist()
            text = cut.tokenizer.decode(ids)
            assert text.startswith(OPENINGS[name])
            first = int(text.split("in turn ")[1].split(".")[0])
            header = text.split("This")[0]
            assert ("user" in header.lower() or "[INST]" in header) == (turns[first].role == "user")
            assert not re.search(r"(<[^<>]+>)\1", header), "a token stands twice"
            speakers.add((turns[first].role, first > 0))
            assert ids == _theirs(plain, turns[first:])[: len(ids)]
    answers_first = set() if isinstance(answer_first, DataError) else {("assistant", True)}
    assert speakers == {("user", False), ("user", True), *answers_first}


def test_a_later_window_of_plain_text_begins_with_the_space_of_a_dialogues_first_speaker(encoders):
    """There is no space before later speakers, but a window is a dialogue of its own."""
    cut = native_encoder(encoders["vicuna"].tokenizer, max_length=130)
    turns = tuple(
        Turn(("user", "assistant")[k % 2], f"This is what is said in turn {k}.") for k in range(24)
    )
    texts = [cut.tokenizer.decode(window.input_ids) for window in cut.encode([Dialogue(turns)])[0]]
    told = OPENINGS["vicuna"]
    assert texts[0].startswith(f"{told} USER: This is what is said in turn 0.")
    assert {text.split("This")[0] for text in texts[1:]} <= {
        f"{told} USER: ",
        f"{told} ASSISTANT: ",
    }
    assert len(texts) > 2


TOLD = "Answer as Tin."


def _conversation(num_turns):
    return (
        Turn("system", TOLD),
        *(Turn(("user", "assistant")[k % 2], f"Turn {k} is said.") for k in range(num_turns)),
    )


@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("gemma3", f"<bos><start_of_turn>user\n{TOLD}\n\nTurn "),
        ("llama2", f"<s>[INST] <<SYS>>\n{TOLD}\n<</SYS>>\n\nTurn "),
        ("mistral", f"<s>[INST] {TOLD}\n\nTurn "),
    ],
)
def test_a_folded_system_text_goes_into_the_first_user_turn_of_every_window_and_prompt(
    encoders, name, opening
):
    cut = native_encoder(encoders[name].tokenizer, max_length=96)
    windows = cut.encode([Dialogue(_conversation(20))])[0]
    texts = [cut.tokenizer.decode(window.input_ids) for window in windows]
    assert len(texts) > 3
    for text in texts:
        assert text.startswith(opening)
        assert int(text.removeprefix(opening).split()[0]) % 2 == 0, "a user turn"
    prompt = cut.prompt(_conversation(19), max_new_tokens=20)
    assert prompt.num_dropped > 0
    assert cut.tokenizer.decode(prompt.ids).startswith(opening)


@pytest.mark.parametrize("name", ["gemma3", "llama2"])
@pytest.mark.parametrize("is_question_long", [False, True])
def test_the_parts_of_a_long_reply_follow_a_question_that_the_system_text_is_folded_into(
    encoders, name, is_question_long
):
    question = "Why, " * (90 if is_question_long else 2) + "please?"
    reply = "Because one two three. " * 60
    turns = (Turn("system", TOLD), Turn("user", question), Turn("assistant", reply.strip()))
    cut = native_encoder(encoders[name].tokenizer, max_length=96)
    (whole,) = encoders[name].encode([Dialogue(turns)])[0]
    (split,) = cut.encode_all([Dialogue(turns)], "assistant", "split")
    parts = [example for example in split.examples if (example.targets == ASSISTANT_TARGET).any()]
    assert len(parts) > 3
    trained = np.concatenate([part.input_ids[part.targets == ASSISTANT_TARGET] for part in parts])
    assert trained.tolist() == whole.input_ids[whole.targets == ASSISTANT_TARGET].tolist()
    begin, end = cut.tokenizer.decode(whole.input_ids).split(TOLD)
    between = end.split("please?")[1].split("Because")[0].rstrip()
    for part in parts:
        assert len(part.input_ids) <= 96
        head, _, rest = cut.tokenizer.decode(part.input_ids).partition(TOLD)
        assert head == begin
        asked, _, answered = rest.partition(between)
        assert asked.endswith("?")
        answer = answered.replace(FAMILIES[name].eos, "").replace("<end_of_turn>", "").strip()
        assert answer in reply


def test_a_system_text_that_is_folded_into_the_last_user_turn_is_there_for_every_reply(
    make_tokenizer,
):
    family = CHANGING["mistral that folds the system text into the last user turn"]
    encoder = native_encoder(make_tokenizer(family))
    first, second = encoder.encode([Dialogue(_conversation(4))])[0]
    begin = "<s>[INST] Turn 0 is said. [/INST] Turn 1 is said.</s>"
    assert encoder.tokenizer.decode(first.input_ids) == begin.replace(
        "[INST] ", f"[INST] {TOLD}\n\n"
    )
    told = f"{begin}[INST] {TOLD}\n\nTurn 2 is said. [/INST] Turn 3 is said.</s>"
    assert encoder.tokenizer.decode(second.input_ids) == told
    assert second.num_repeated == len(encoder.tokenizer.encode(begin, add_special_tokens=False))
    prompt = encoder.prompt(_conversation(3), max_new_tokens=8).ids
    assert second.input_ids[: len(prompt)].tolist() == prompt


def test_if_no_window_is_accepted_the_dialogue_is_refused_with_the_templates_words(encoders):
    turns = (Turn("user", "Is it not " * 9 + "so?"), Turn("assistant", "It is " * 9 + "so."))
    whole = len(encoders["gemma"].encode([Dialogue(turns)])[0][0].input_ids)
    cut = native_encoder(encoders["gemma"].tokenizer, max_length=whole - 1)
    (refused,) = cut.encode_all([Dialogue(turns, line=4, file="a.jsonl")])
    assert refused.code == "turn-too-long"
    assert refused.needed == whole
    assert "with the turn before it, which it needs: the chat template refuses" in refused.message
    assert "Users and models speak in turns" in refused.message
    (split,) = cut.encode_all([Dialogue(turns)], "assistant", "split")
    assert any((example.targets > 0).any() for example in split.examples)


@pytest.mark.parametrize(
    ("name", "roles", "says"),
    [
        ("gemma", ["system", "user", "assistant"], "There is no system here"),
        ("gemma", ["user", "user", "assistant"], "Users and models speak in turns"),
        (
            "mistral",
            ["assistant", "user", "assistant"],
            "It is the turn of the user, not of the assistant",
        ),
        (
            "mistral",
            ["user", "assistant", "assistant"],
            "It is the turn of the user, not of the assistant",
        ),
    ],
)
def test_a_dialogue_that_the_template_refuses_is_named_with_its_line_and_the_templates_words(
    encoders, name, roles, says
):
    dialogue = Dialogue(tuple(Turn(role, "Hi") for role in roles), line=17, file="train.jsonl")
    encoders[name].require_parity(dialogue.turns)
    with pytest.raises(DataError) as caught:
        encoders[name].encode([dialogue])
    assert (
        caught.value.message == f"train.jsonl:17:1 $ the chat template refuses the dialogue: {says}"
    )
    assert "dialogue.template" in str(caught.value.hint)


def test_a_text_that_the_template_changes_is_named_with_its_line(make_tokenizer):
    source = FAMILIES["qwen"].source.replace("message.content", "message.content[:20]")
    encoder = native_encoder(make_tokenizer(FAMILIES["qwen"], chat_template=source))
    fine = Dialogue((Turn("user", "short"), Turn("assistant", "answer")), line=1)
    cut = Dialogue((Turn("user", "short"), Turn("assistant", "a much longer answer")), line=2)
    assert encoder.encode([fine])
    encoder.encode([cut])
    with pytest.raises(DataError, match=r"line 3 .* the chat template changes the text of a turn"):
        encoder.encode(
            [Dialogue((*cut.turns, Turn("user", "a question that is longer than that")), line=3)]
        )


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            CHATML.replace("<|im_end|>", "") + PROMPT,
            "ends an assistant turn without a special token",
        ),
        (CHATML.replace("m.content", "m.content | upper") + PROMPT, "changes the text of a turn"),
        (
            CHATML.replace("in messages", "in messages[-1:]") + PROMPT,
            "does not render every turn once and in order",
        ),
        (
            CHATML.replace("m.content", "m.content + m.content") + PROMPT,
            "does not render every turn once",
        ),
        (
            CHATML.replace("endfor", "endfour") + PROMPT,
            "refuses the dialogue: Encountered unknown tag 'endfour'",
        ),
        (
            CHATML.replace("m.content", "m.content.text.strip()") + PROMPT,
            "refuses the dialogue: .*has no attribute",
        ),
        (
            CHATML.replace("m.content", "m.content + 1") + PROMPT,
            "refuses the dialogue: can only concatenate str",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_on_is_refused_with_the_reason(
    make_tokenizer, source, says
):
    tokenizer = make_tokenizer(FAMILIES["qwen"], chat_template=source)
    with pytest.raises(
        ModelError, match=f"template native cannot be used: the chat template {says}"
    ) as caught:
        native_encoder(tokenizer)
    assert "dialogue.template: turns" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        (CHATML, "<|im_start|>assistant\n"),
        (CHATML + PROMPT.replace("assistant\n", "assistant\n<think>\n"), "<|im_start|>assistant\n"),
        (
            "{% if add_generation_prompt %}Go on.{% endif %}" + CHATML + PROMPT,
            "<|im_start|>assistant\n",
        ),
        (
            CHATML.replace(
                "{{ m.content", "{{ '' if m.role == 'user' else '<think>' }}{{ m.content"
            )
            + PROMPT,
            "<|im_start|>assistant\n<think>",
        ),
    ],
)
def test_what_the_template_writes_before_a_reply_becomes_its_generation_prompt(
    make_tokenizer, source, prompt
):
    tokenizer = make_tokenizer(FAMILIES["qwen"], chat_template=source)
    choice = choose_native(tokenizer, {}, keeps_reasoning=False)
    assert choice.notices[0].startswith(f"the generation prompt becomes {quoted(prompt)}")
    encoder = native_encoder(tokenizer)
    plain = _with_template(tokenizer, encoder)
    turns = [Turn("user", "a"), Turn("assistant", "b")] * 2
    assert _targets(encoder, turns) == "b<|im_end|>" * 2
    asked = plain.apply_chat_template(
        as_messages(turns[:1]), tokenize=False, add_generation_prompt=True
    )
    assert asked == f"<|im_start|>user\na<|im_end|>\n{prompt}"
    assert native_encoder(tokenizer).template.chat_template == encoder.template.chat_template
    encoder.require_parity(turns)


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_convo_cannot_train_as_it_chats_is_refused_with_the_reason(
    make_tokenizer, name
):
    with pytest.raises(ModelError) as caught:
        native_encoder(make_tokenizer(REFUSED[name]))
    assert (
        caught.value.message
        == f"template native cannot be used: the chat template {REFUSED[name].says}"
    )


def test_two_replies_in_a_row_are_refused_if_the_prompt_of_the_second_differs(encoders):
    dialogue = Dialogue((Turn("user", "a"), Turn("assistant", "b"), Turn("assistant", "c")), line=7)
    with pytest.raises(DataError, match="begins a reply differently from its generation prompt"):
        encoders["tulu"].encode([dialogue])


def test_a_thought_that_the_template_takes_out_of_a_reply_is_refused_with_its_line(encoders):
    thinking = Dialogue((Turn("user", "a"), Turn("assistant", "<think>Hm.</think>b")), line=8)
    with pytest.raises(
        DataError, match=r"line 8 .* drops the reasoning of a reply that is trained"
    ):
        encoders["deepseek"].encode([thinking])


# Generation marks


def _chatml(assistant, *, user="<|im_start|>user\n{}<|im_end|>\n", start=""):
    """Return a chat template of such turns: {} is the text, « » are the generation marks."""
    return (
        f"{_jinja(start)}{{%- for m in messages %}}{{%- if m.role == 'user' %}}{_jinja(user)}"
        f"{{%- else %}}{_jinja(assistant)}{{%- endif %}}{{%- endfor %}}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    )


def _jinja(form):
    code = {"«": "{%- generation %}", "»": "{%- endgeneration %}", "{}": "{{- m.content }}"}
    return "".join(
        code.get(part) or f"{{{{- {part!r} }}}}" for part in re.split("(«|»|{})", form) if part
    )


def _targets(encoder, turns, kind=ASSISTANT_TARGET):
    (example,) = encoder.encode([Dialogue(tuple(turns))])[0]
    return encoder.tokenizer.decode(example.input_ids[example.targets == kind].tolist())


@pytest.mark.parametrize(
    ("assistant", "targets"),
    [
        ("<|im_start|>assistant\n{}<|im_end|>\n", "b<|im_end|>"),
        ("<|im_start|>assistant\n«{}<|im_end|>»\n", "b<|im_end|>"),
        ("<|im_start|>assistant\n«{}»«<|im_end|>»\n", "b<|im_end|>"),
        ("<|im_start|>assistant\n«{}<|im_end|>\n»", "b<|im_end|>\n"),
        ("<|im_start|>«assistant\n{}<|im_end|>»\n", "assistant\nb<|im_end|>"),
        ("«<|im_start|>»assistant\n«{}<|im_end|>»\n", "<|im_start|>b<|im_end|>"),
        ("«<|im_start|>assistant\n{}<|im_end|>\n»", "<|im_start|>assistant\nb<|im_end|>\n"),
    ],
)
def test_the_targets_are_exactly_the_text_inside_the_marks(make_tokenizer, assistant, targets):
    encoder = native_encoder(make_tokenizer(FAMILIES["qwen"], chat_template=_chatml(assistant)))
    turns = [Turn("user", "a"), Turn("assistant", "b")]
    assert _targets(encoder, turns) == targets
    assert _targets(encoder, turns * 2) == targets * 2
    assert _targets(encoder, turns, USER_TARGET) == "a<|im_end|>"
    assert encoder.template.stop_tokens == ("<|im_end|>",)
    encoder.require_parity(turns)


LEFT_OUT = "out of its generation marks, so the model would not be trained on it"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (
            _chatml("<|im_start|>assistant\n«{}»<|im_end|>\n"),
            f"leaves the end token <|im_end|> {LEFT_OUT}",
        ),
        (
            _chatml("<|im_start|>assistant\n{}«<|im_end|>»\n"),
            f"leaves a part of a reply {LEFT_OUT}",
        ),
        (
            _chatml("<|im_start|>assistant\n«{}»Over.«<|im_end|>»\n"),
            f"leaves a part of a reply {LEFT_OUT}",
        ),
        (
            _chatml("«<|im_»start|>assistant\n«{}<|im_end|>»\n"),
            "has a generation mark inside the token <|im_start|>",
        ),
        (
            _chatml(
                "<|im_start|>assistant\n«{}<|im_end|>»\n", user="<|im_start|>user\n«{}»<|im_end|>\n"
            ),
            "has generation marks in a user turn",
        ),
        (
            _chatml("<|im_start|>assistant\n«{}<|im_end|>»\n", start="«<|endoftext|>»"),
            "has generation marks in text outside the turns",
        ),
    ],
)
def test_marks_that_leave_out_or_enclose_the_wrong_text_are_refused(make_tokenizer, source, says):
    with pytest.raises(ModelError) as caught:
        native_encoder(make_tokenizer(FAMILIES["qwen"], chat_template=source))
    assert caught.value.message == f"template native cannot be used: the chat template {says}"


MARKED_REPLY, UNMARKED_REPLY = (
    _jinja(f"<|im_start|>assistant\n{form}\n") for form in ("«{}<|im_end|>»", "{}<|im_end|>")
)


@pytest.mark.parametrize(
    "reply",
    [
        (
            f"{{%- if m.content | length != 14 %}}{MARKED_REPLY}{{%- else %}}{UNMARKED_REPLY}{{%- "
            "endif %}"
        ),
        MARKED_REPLY.replace(
            _jinja("{}"),
            "{{- m.content[:9] }}" + _jinja("»") + "{{- m.content[9:] }}" + _jinja("«"),
        ),
    ],
)
def test_marks_that_fit_most_dialogues_are_refused_with_the_line_of_one_that_they_do_not_fit(
    make_tokenizer, reply
):
    source = _chatml("REPLY").replace(_jinja("REPLY"), reply)
    encoder = native_encoder(make_tokenizer(FAMILIES["qwen"], chat_template=source))
    assert _targets(encoder, [Turn("user", "a"), Turn("assistant", "b")]) == "b<|im_end|>"
    with pytest.raises(DataError, match=r"line 9 .* leaves a part of a reply out"):
        encoder.encode([Dialogue((Turn("user", "a"), Turn("assistant", "a longer reply")), line=9)])


def test_a_marked_header_at_the_very_start_is_no_target(make_tokenizer):
    source = _chatml("«<|im_start|>assistant\n{}<|im_end|>\n»")
    encoder = native_encoder(make_tokenizer(FAMILIES["qwen"], chat_template=source))
    (example,) = encoder.encode([Dialogue((Turn("assistant", "b"),))])[0]
    assert example.targets.tolist() == [NO_TARGET] + [ASSISTANT_TARGET] * (len(example.targets) - 1)


def test_a_window_without_room_for_anything_before_a_reply_that_has_no_header_is_refused(
    make_tokenizer,
):
    question, reply = "'[INST] ' + m.content + ' [/INST]'", "' ' + m.content + eos_token"
    turn = f"{{{{ {question} if m.role == 'user' else {reply} }}}}"
    source = f"{{% for m in messages %}}{turn}{{% endfor %}}"
    encoder = native_encoder(make_tokenizer(FAMILIES["mistral"], chat_template=source))
    turns = (
        Turn("user", "What is said here is long."),
        Turn("assistant", "What is said here is long."),
    )
    num_tokens = len(encoder.encode([Dialogue(turns)])[0][0].input_ids)
    for max_length, is_refused in ((num_tokens, False), (num_tokens - 1, True)):
        cut = native_encoder(encoder.tokenizer, max_length=max_length)
        refusal = pytest.raises(DataError, match="leaves no room for a token before")
        with refusal if is_refused else nullcontext():
            cut.encode([Dialogue(turns)])


def test_a_tokenizer_that_joins_the_prompt_with_the_reply_is_refused_and_keeps_the_prompt_whole(
    make_tokenizer,
):
    encoder = native_encoder(
        make_tokenizer(FAMILIES["qwen"], chat_template=(CHATML + PROMPT).replace("\n", " "))
    )
    turns = [Turn("user", "What is this?"), Turn("assistant", "What you see.")]
    with pytest.raises(
        ModelError, match="template native does not fit this tokenizer: from token "
    ):
        encoder.require_parity(turns)
    ids = encoder.encode([Dialogue(tuple(turns))])[0][0].input_ids.tolist()
    prompt = encoder.prompt(turns[:1], max_new_tokens=1).ids
    assert ids[: len(prompt)] == prompt
    assert encoder.decode(ids[len(prompt) :]) == "What you see. "


def test_a_tokenizer_that_marks_the_start_of_every_text_marks_no_word_within_it(make_tokenizer):
    tokenizer = make_tokenizer(FAMILIES["zephyr"])
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Prepend("x")  # as SentencePiece models prepend a space
    encoder = native_encoder(tokenizer)
    turns = [Turn("user", "Hi"), Turn("assistant", "Hello")]
    encoder.require_parity(turns)
    (example,) = encoder.encode([Dialogue(tuple(turns))])[0]
    assert tokenizer.decode(example.input_ids) == "x<|user|>\nHi</s>x\n<|assistant|>\nHello</s>x\n"


def test_the_default_one_of_several_chat_templates_is_used(make_tokenizer):
    tokenizer = make_tokenizer(FAMILIES["qwen"])
    alone = make_template("native", tokenizer).chat_template
    tokenizer.chat_template = {"tool_use": "{{ messages }}", "default": alone}
    assert make_template("auto", tokenizer).chat_template == alone
    tokenizer.chat_template = {"tool_use": "{{ messages }}"}
    with pytest.raises(ModelError, match="has no chat template"):
        make_template("native", tokenizer)


def test_the_date_in_a_template_stays_that_of_the_first_day(make_tokenizer, tmp_path, monkeypatch):
    class Calendar(datetime):
        day = 1

        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, cls.day)

    monkeypatch.setattr(chat_template_source, "datetime", Calendar)
    encoder = native_encoder(make_tokenizer(FAMILIES["llama3"]))
    turns = [Turn("user", "Hi")]
    first = encoder.prompt(turns, max_new_tokens=1).ids
    assert "Today is 01 May 2031." in encoder.tokenizer.decode(first)
    save_encoder(encoder, tmp_path, spiece=None)
    Calendar.day = 2
    assert load_encoder(tmp_path).prompt(turns, max_new_tokens=1).ids == first
    later = native_encoder(make_tokenizer(FAMILIES["llama3"]))
    assert "02 May 2031" in later.template.chat_template


@pytest.mark.parametrize(
    "call",
    [
        "{%- set form = '%d %b %Y' %}{{ strftime_now(form) }}",
        "{{ strftime_now(format='%d %b %Y') }}",
        "{%- set clock = strftime_now %}{{ clock('%d %b %Y') }}",
        "{%- if strftime_now is defined %}{{ strftime_now('%d' ~ ' %b %Y') }}{% endif %}",
    ],
)
def test_the_date_stays_that_of_the_first_day_in_any_spelling(
    make_tokenizer, tmp_path, monkeypatch, call
):
    class Calendar(datetime):
        day = 1

        @classmethod
        def now(cls, tz=None):
            return cls(2031, 5, cls.day)

    monkeypatch.setattr(chat_template_source, "datetime", Calendar)
    encoder = native_encoder(make_tokenizer(FAMILIES["qwen"], chat_template=call + CHATML + PROMPT))
    first = encoder.prompt([Turn("user", "Hi")], max_new_tokens=1).ids
    assert encoder.tokenizer.decode(first).startswith("01 May 2031<|im_start|>")
    save_encoder(encoder, tmp_path, spiece=None)
    Calendar.day = 2
    assert load_encoder(tmp_path).prompt([Turn("user", "Hi")], max_new_tokens=1).ids == first


def test_an_option_is_the_default_of_the_exported_template_too(make_tokenizer, tmp_path):
    source = "{{ style or 'plain' }}: " + CHATML + PROMPT
    tokenizer = make_tokenizer(FAMILIES["qwen"], chat_template=source)
    options = {"style": "it's {{ brief }}", "unread": [1, None, {"a": True}]}
    choice = choose_native(tokenizer, options, keeps_reasoning=False)
    assert choice.warnings == (
        "the chat template reads no variable unread (dialogue.template_options); it reads style",
    )
    encoder = native_encoder(tokenizer, options=options)
    turns = [Turn("user", "a"), Turn("assistant", "b")]
    encoder.require_parity(turns)
    save_encoder(encoder, tmp_path, spiece=None)
    again = load_encoder(tmp_path)
    assert again.template.options == options
    plain = _with_template(tokenizer, encoder)
    text = plain.apply_chat_template(as_messages(turns), tokenize=False)
    assert text.startswith("it's {{ brief }}: <|im_start|>user")
    other = plain.apply_chat_template(as_messages(turns), tokenize=False, style="long")
    assert other.startswith("long: ")


def test_a_given_option_that_prevents_training_is_refused_with_the_one_that_helps(make_tokenizer):
    family = CHANGING["qwen3, which thinks only in its last turn"]
    tokenizer = make_tokenizer(family)
    with pytest.raises(ModelError, match="before a reply, but not in its") as caught:
        choose_native(tokenizer, {"enable_thinking": True}, keeps_reasoning=False)
    assert caught.value.hint == "set dialogue.template_options: {enable_thinking: false}"
    chosen = choose_native(tokenizer, {}, keeps_reasoning=False)
    assert chosen.template.options == {"enable_thinking": False}
    assert "each reply becomes an example of its own" in chosen.notices[-1]
