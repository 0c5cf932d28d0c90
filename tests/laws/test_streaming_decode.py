"""What a reply shows token by token joins to exactly what decoding it at once gives, and never half a character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import PLAIN


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder()


def _stream(encoder, ids):
    decoder = encoder.stream()
    return [decoder.push(token) for token in ids] + [decoder.finish()]


@settings(max_examples=150, deadline=None)
@given(text=PLAIN)
def test_streamed_text_is_the_text(encoder, text):
    ids = encoder.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    parts = _stream(encoder, ids)
    assert "".join(parts) == text
    assert all("\ufffd" not in part for part in parts[:-1]) or "\ufffd" in text


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_ids_stream_to_what_they_decode_to(encoder, data):
    ids = data.draw(st.lists(st.integers(0, len(encoder.tokenizer) - 1), max_size=20))
    assert "".join(_stream(encoder, ids)) == encoder.decode(ids)
