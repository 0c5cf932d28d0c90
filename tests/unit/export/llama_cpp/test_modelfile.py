"""Modelfile: what Ollama reads from it, whatever is in tokens, templates and settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.events import Notice
from convo_cli.export.llama_cpp.modelfile import stop_texts, write_modelfile
from convo_cli.export.llama_cpp.ollama_templates import go_text
from convo_cli.model.open import generation_defaults, open_generator
from tests.modelfiles import read_modelfile, unquote, written_by

HOSTILE = st.text(
    st.one_of(st.sampled_from('{}"\\`%\n\r\t #<|>\u3000\xa0\u2028\x85\ufeff🦩한'), st.characters())
).filter(lambda text: text.isprintable() or not any("\ud800" <= x <= "\udfff" for x in text))


@given(HOSTILE)
def test_go_source_writes_the_text_and_a_modelfile_holds_it(text):
    source = go_text(text)
    assert written_by(source) == text
    modelfile = f'FROM ./a.gguf\nTEMPLATE """{source}"""\nPARAMETER num_ctx 8\n'
    assert read_modelfile(modelfile) == [
        ("from", "./a.gguf"),
        ("template", source),
        ("num_ctx", "8"),
    ]


@given(st.lists(HOSTILE, max_size=4))
def test_a_stop_text_is_held_exactly_or_left_out(tokens):
    held, left_out = stop_texts(tokens)
    assert sorted([*held, *left_out]) == sorted(tokens)
    for token in held:
        assert read_modelfile(f'PARAMETER stop """{token}"""\n') == [("stop", token)]
    plain = [token for token in tokens if token.isascii() and token.isprintable()]
    assert all(token in held for token in plain if token.strip())


def test_quotes_end_a_value_only_before_a_line_break():
    """The port of Ollama's parser can report a value that breaks out."""
    assert read_modelfile('TEMPLATE """a"""\nSYSTEM """b""""\n') == [
        ("template", "a"),
        ("system", 'b"'),
    ]
    assert unquote('"""') is None
    with pytest.raises(StopIteration):
        read_modelfile('TEMPLATE """a\n')
    with pytest.raises(AssertionError):
        read_modelfile('TEMPLATE """a"""\nb"""\n')


@pytest.fixture(scope="module")
def opened(checkpoint):
    return open_generator(str(checkpoint), device="cpu", emit=lambda event: None)


def written(opened, folder, events=None):
    source = cast(Any, SimpleNamespace(generator=opened))
    emit = (events if events is not None else []).append
    write_modelfile(folder, "model-F32.gguf", source, emit)
    return read_modelfile((folder / "Modelfile").read_text(encoding="utf-8"))


def test_a_modelfile_states_template_window_sampling_and_stops(opened, tmp_path):
    values = dict(written(opened, tmp_path))
    assert list(values) == [
        *("from", "template", "num_ctx", "num_predict", "temperature", "top_k", "top_p", "min_p"),
        *("repeat_penalty", "stop"),
    ]
    assert values["from"] == "./model-F32.gguf"
    assert values["num_ctx"] == str(opened.encoder.max_length)
    assert values["stop"] == "<|end|>"
    assert "<|assistant|>" in values["template"]
    settings = generation_defaults(opened)
    assert float(values["temperature"]) == settings.temperature
    assert int(values["num_predict"]) == settings.max_new_tokens


def test_sampling_of_the_checkpoint_is_stated(make_checkpoint, tmp_path):
    """Ollama's own defaults are another temperature, 40 tokens, and a penalty over 64 of them."""
    changes = {"temperature": 0.0, "top_k": 3, "repetition_penalty": 1.3, "max_new_tokens": 9}
    folder = make_checkpoint(tmp_path / "run", **changes)
    opened = open_generator(str(folder), device="cpu", emit=lambda event: None)
    values = dict(written(opened, tmp_path))
    assert float(values["temperature"]) == 0
    assert float(values["repeat_penalty"]) == 1.3
    assert values["repeat_last_n"] == "-1"
    assert values["num_predict"] == "9"


def with_template(opened, chat_template, *stops):
    tokenizer = SimpleNamespace(
        special_tokens_map={"bos_token": "<s>"}, bos_token="<s>", name_or_path="made"
    )
    template = SimpleNamespace(chat_template=chat_template, stop_tokens=stops)
    encoder = SimpleNamespace(tokenizer=tokenizer, template=template, max_length=8)
    return SimpleNamespace(model=opened.model, encoder=encoder)


def test_a_template_of_another_form_and_a_stop_that_is_no_text_are_told(opened, tmp_path):
    changed = with_template(opened, "{{ messages | length }}", "<|end|>", "\n", 'a"""')
    events = list[Notice]()
    found = written(changed, tmp_path, events)
    assert "template" not in dict(found)
    assert [value for name, value in found if name == "stop"] == ["<|end|>", 'a"""']
    assert ["no TEMPLATE" in events[0].message, "stop token" in events[1].message] == [True, True]
    assert events[0].is_warning
