"""Every config key has its stated effect: runs that differ only in this key differ in this way."""

from __future__ import annotations

from pathlib import Path

import pytest

from convo_cli.config.keys import config_keys
from tests.docs.effects import EFFECTS
from tests.docs.effects.page import effects_page
from tests.docs.effects.workshop import Workshop

PAGE = Path(__file__).parents[2] / "docs" / "effects.md"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("effects"))


@pytest.mark.parametrize("entry", EFFECTS, ids=[entry.key for entry in EFFECTS])
def test_the_key_has_the_stated_effect(entry, workshop):
    """And the check fails if the key is ignored, which gives the same run for all values."""
    if entry.key.startswith("model.lora."):
        pytest.importorskip("peft", reason='needs pip install "convo-cli[adapters]"')
    runs = [workshop.observe(settings) for settings in entry.settings]
    entry.check(*runs)
    for ignored in runs:
        with pytest.raises(AssertionError):
            entry.check(*[ignored] * len(entry.values))


def test_every_key_has_an_entry_with_its_effect_in_words():
    keys, tested = (
        {path for path, key in config_keys().items() if not key.is_section},
        {entry.key for entry in EFFECTS},
    )
    assert keys - tested == set(), "keys without an entry: add it to a module of tests/docs/effects"
    assert tested - keys == set(), "entries without a key: remove them from tests/docs/effects"
    assert [
        entry.key for entry in EFFECTS if not entry.says.endswith(".") or not entry.seen_in
    ] == []


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == effects_page(), "run: make docs"
