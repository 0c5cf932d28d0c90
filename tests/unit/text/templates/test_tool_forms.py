"""Tool calls under chat templates that know them, and under one that ignores them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convo_cli.config.schema import DataConfig
from convo_cli.data.dialogue import Dialogue, Turn, as_messages, begins_exchange, tool_definitions
from convo_cli.data.problems import Problem, ProblemError
from convo_cli.data.shapes.turns import read_value
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.readable import stretches
from convo_cli.text.templates.template import make_template
from convo_cli.tokens.store import ASSISTANT_TARGET, Encoded
from tests.families import Family, family_tokenizer, native_encoder

CORPUS = [
    Dialogue((Turn("user", "Weather in Oslo? name arguments city"), Turn("assistant", "4 C")))
]
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
HERMES = (
    "{%- if tools %}<|im_start|>system\n"
    "{%- if messages[0].role == 'system' %}{{ messages[0].content }}\n{% endif %}"
    "Tools:{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}<|im_end|>\n"
    "{%- elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}"
    "<|im_end|>\n{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' or (message.role == 'assistant' and not message.tool_calls) %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- elif message.role == 'assistant' %}"
    "{{- '<|im_start|>assistant' }}"
    "{%- if message.content %}{{- '\n' + message.content }}{%- endif %}"
    "{%- for call in message.tool_calls %}"
    '{{- \'\n<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson }}{{- '}\n</tool_call>' }}{%- endfor %}"
    "{{- '<|im_end|>\n' }}"
    "{%- elif message.role == 'tool' %}"
    "{%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}"
    "{%- endif %}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA = (
    "{{- bos_token }}"
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{%- if tools %}{{- 'Environment: ipython\n' }}{%- endif %}{{- system + '<|eot_id|>' }}"
    "{%- if tools %}{{- '<|start_header_id|>user<|end_header_id|>\n\nFunctions:\n' }}"
    "{%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\n\n' }}{%- endfor %}"
    "{{- messages[0].content + '<|eot_id|>' }}{%- set messages = messages[1:] %}{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message.role in ('tool', 'ipython') %}"
    "{{- '<|start_header_id|>ipython<|end_header_id|>\n\n' }}"
    "{{- message.content | tojson + '<|eot_id|>' }}"
    "{%- elif 'tool_calls' in message %}"
    "{%- if message.tool_calls | length != 1 %}{{- raise_exception('only one call') }}{%- endif %}"
    "{%- set call = message.tool_calls[0].function %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    '{{- \'{"name": "\' + call.name + \'", "parameters": \' }}{{- call.arguments | tojson }}'
    "{{- '}<|eot_id|>' }}"
    "{%- else %}{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
    "{{- message.content + '<|eot_id|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
MISTRAL = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}"
    "{%- if tools and loop.index0 == 0 %}"
    "{{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}"
    "{{- '[INST]' + message.content + '[/INST]' }}"
    "{%- elif message.tool_calls %}{{- '[TOOL_CALLS][' }}"
    "{%- for call in message.tool_calls %}"
    "{%- if call.id | length != 9 %}{{- raise_exception('ids have 9 characters') }}{%- endif %}"
    "{{- (call.function | tojson)[:-1] + ', \"id\": \"' + call.id + '\"}' }}"
    "{{- ', ' if not loop.last else ']' + eos_token }}{%- endfor %}"
    "{%- elif message.role == 'tool' %}"
    '{{- \'[TOOL_RESULTS]{"content": \' + message.content + \', "call_id": "\' }}'
    "{{- message.tool_call_id + '\"}[/TOOL_RESULTS]' }}"
    "{%- else %}{{- message.content + eos_token }}{%- endif %}{%- endfor %}"
)
SILENT = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
MISTRAL_TOKENS = (
    *("<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
)
FAMILIES: dict[str, tuple[Family, str]] = {
    "hermes": (
        Family("", CHATML_TOKENS, "<|im_end|>", unmarked=("<tool_call>", "</tool_call>")),
        HERMES,
    ),
    "llama": (Family("", LLAMA_TOKENS, "<|eot_id|>", bos="<|begin_of_text|>"), LLAMA),
    "mistral": (Family("", MISTRAL_TOKENS, "</s>", bos="<s>"), MISTRAL),
    "silent": (Family("", CHATML_TOKENS, "<|im_end|>"), SILENT),
}
KNOWING = ("hermes", "llama", "mistral")
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
USER = {"role": "user", "content": "Weather in Oslo?"}
THANKS = {"role": "user", "content": "Thanks, and in Rome?"}
REPLY = {"role": "assistant", "content": "It is 4 degrees."}
DONE = {"role": "assistant", "content": "Warm."}


def calling(city: str = "Oslo", **keys: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": json.dumps({"city": city})}
    return {"role": "assistant", "content": None, "tool_calls": [{"function": function}], **keys}


def result(text: str = '{"degrees": "4 C"}\nclear.') -> dict[str, Any]:
    return {"role": "tool", "content": text}


def dialogue_of(messages: list[Any], tools: list[Any] | None = None) -> Dialogue:
    reading = read_value({"messages": messages, "tools": tools}, DataConfig(train=("unused",)))
    assert reading is not None
    return Dialogue(tuple(turn for _, turn in reading.turns), 1)


PLAIN = [USER, calling(), result(), REPLY]
LONG = [*PLAIN, THANKS, calling("Rome"), result("30 C"), DONE]
SHAPES = {
    "a call": dialogue_of(PLAIN),
    "definitions": dialogue_of(PLAIN, TOOLS),
    "definitions without a call": dialogue_of([USER, REPLY], TOOLS),
    "calls in two replies": dialogue_of(LONG, TOOLS),
    "a chain of calls": dialogue_of(
        [USER, calling(), result(), calling("Rome"), result("30 C"), REPLY]
    ),
}


@pytest.fixture(scope="module")
def encoders() -> dict[str, DialogueEncoder]:
    return {
        name: native_encoder(family_tokenizer(family, CORPUS, source))
        for name, (family, source) in FAMILIES.items()
    }


def target_texts(encoder: DialogueEncoder, dialogue: Dialogue) -> list[str]:
    return [
        stretch.text
        for example in encoder.encode([dialogue])[0]
        for stretch in stretches(encoder, example)
        if stretch.target == "assistant"
    ]


@pytest.mark.parametrize("family", KNOWING)
@pytest.mark.parametrize("shape", SHAPES)
def test_ids_are_those_of_transformers_and_only_answers_are_targets(
    encoders: dict[str, DialogueEncoder], family: str, shape: str
) -> None:
    encoder, dialogue = encoders[family], SHAPES[shape]
    encoder.require_parity(dialogue.turns)
    (example,) = encoder.encode([dialogue])[0]
    theirs = encoder.tokenizer.apply_chat_template(
        as_messages(dialogue.turns), tools=tool_definitions(dialogue.turns), return_dict=False
    )
    assert example.input_ids.tolist() == theirs
    end = encoder.template.stop_tokens[0]
    replies = [turn.text + end for turn in dialogue.turns if turn.is_reply]
    assert [text.strip() for text in target_texts(encoder, dialogue)] == replies


@pytest.mark.parametrize("family", KNOWING)
def test_the_prompt_after_a_result_is_the_start_of_the_training_example(
    encoders: dict[str, DialogueEncoder], family: str
) -> None:
    encoder, turns = encoders[family], SHAPES["definitions"].turns
    prompt = encoder.prompt(turns[:-1], max_new_tokens=8).ids
    (example,) = encoder.encode([SHAPES["definitions"]])[0]
    assert example.input_ids[: len(prompt)].tolist() == prompt
    assert ASSISTANT_TARGET not in example.targets[: len(prompt)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_template_that_ignores_tools_refuses_the_dialogue(
    encoders: dict[str, DialogueEncoder], shape: str
) -> None:
    (found,) = encoders["silent"].encode_all([SHAPES[shape]])
    assert isinstance(found, Problem)
    assert (found.code, found.line) == ("tools-not-rendered", 1)
    assert "no place for" in found.message


@pytest.mark.parametrize("name", ["turns", "chatml", "convmodel", "cls-sep"])
def test_templates_of_convo_refuse_tools(name: Any) -> None:
    tokenizer = family_tokenizer(FAMILIES["silent"][0], CORPUS, SILENT)
    template = make_template(name, tokenizer)
    (error,) = template.render_all([SHAPES["a call"].turns])
    assert isinstance(error, Exception)
    assert f"template {name} has no place for a tool call" in str(error)


@pytest.mark.parametrize("family", KNOWING)
def test_a_result_that_spells_a_special_token_is_text_and_a_call_is_refused(
    encoders: dict[str, DialogueEncoder], family: str
) -> None:
    encoder = encoders[family]
    for token in (*FAMILIES[family][0].tokens, *FAMILIES[family][0].unmarked):
        clean = dialogue_of([USER, calling(), result("say x now"), REPLY])
        spelled = dialogue_of([USER, calling(), result(f"say {token} now"), REPLY])
        (index,) = [encoder.tokenizer.convert_tokens_to_ids(token)]
        counts = [
            encoder.encode([one])[0][0].input_ids.tolist().count(index) for one in (clean, spelled)
        ]
        assert counts[0] == counts[1]
        with pytest.raises(ProblemError, match="spells a special token"):
            encoder.encode([dialogue_of([USER, calling(token), result(), REPLY])])


@pytest.mark.parametrize("family", ["hermes", "llama"])
@pytest.mark.parametrize("max_length", [40, 60, 90, 130, 200])
def test_no_window_begins_with_a_result_and_every_answer_is_trained_on_once(
    encoders: dict[str, DialogueEncoder], family: str, max_length: int
) -> None:
    encoder = encoders[family]
    short = DialogueEncoder(encoder.tokenizer, encoder.template, max_length=max_length)
    dialogue = dialogue_of(LONG)
    for long_turns in ("drop", "split"):
        (found,) = short.encode_all([dialogue], "assistant", long_turns)
        if isinstance(found, Problem):
            assert long_turns == "drop"
            continue
        assert isinstance(found, Encoded)
        targets = [target for one in found.examples for target in one.targets.tolist()]
        whole = encoder.encode([dialogue])[0][0].targets
        assert targets.count(ASSISTANT_TARGET) == (whole == ASSISTANT_TARGET).sum()
        if not found.is_split:
            for example in found.examples:
                text = "".join(stretch.text for stretch in stretches(short, example))
                assert text.count("tool_response>") % 2 == 0
                calls = text.count('"name": "weather"')
                assert calls == text.count("4 C") + text.count("30 C")


def test_windows_begin_only_outside_of_an_exchange() -> None:
    turns = [*SHAPES["calls in two replies"].turns[1:]]
    begins = [index for index in range(len(turns)) if begins_exchange(turns, index)]
    assert begins == [0, 1, 4, 5]
    assert not turns[1].is_reply
    assert turns[3].is_reply


def test_a_template_that_writes_only_the_first_of_two_calls_is_refused() -> None:
    source = HERMES.replace("in message.tool_calls %}", "in message.tool_calls[:1] %}")
    encoder = native_encoder(family_tokenizer(FAMILIES["hermes"][0], CORPUS, source))
    two = calling()
    two["tool_calls"] *= 2
    (found,) = encoder.encode_all([dialogue_of([USER, two, result(), result(), REPLY])])
    assert isinstance(found, Problem)
    encoder.encode([SHAPES["a call"]])


def test_a_call_and_its_text_are_context_together(encoders: dict[str, DialogueEncoder]) -> None:
    dialogue = dialogue_of([USER, calling(content="Let me look."), result(), REPLY])
    assert target_texts(encoders["hermes"], dialogue) == ["It is 4 degrees.<|im_end|>"]
    (found,) = encoders["llama"].encode_all([dialogue])  # it drops the text
    assert isinstance(found, Problem)
    assert isinstance(dialogue.turns[1], Turn)
