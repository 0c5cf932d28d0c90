"""Hard texts and dialogues are always the same ones, and hold what a dialogue can hold."""

from __future__ import annotations

from convo_cli.data.dialogue import Turn
from convo_cli.export.proof.hard_texts import hard_texts
from convo_cli.export.proof.probe_dialogues import PROBE_DIALOGUES, MissingScripts, scripts_in


def test_there_are_600_different_texts_that_utf8_can_write():
    texts = [one.text for one in hard_texts()]
    assert len(texts) == len(set(texts)) == 600
    assert not any("\0" in text for text in texts)
    assert all(text == text.encode().decode() for text in texts)
    joined = "".join(texts)
    for character in "\u200d\ufeff\r\t\u0301\u05e9\U0010ffff\ue000\u0378\U0001f1e9":
        assert character in joined
    assert {len(text) for text in texts if text.isdecimal()} >= set(range(1, 21))


def test_twelve_dialogues_end_with_the_user_and_have_many_scripts():
    assert len(PROBE_DIALOGUES) == 12
    assert all(turns[-1].role == "user" for turns in PROBE_DIALOGUES)
    assert any(turns[0].role == "system" for turns in PROBE_DIALOGUES)
    assert len(scripts_in(PROBE_DIALOGUES)) >= 10


def test_a_dialogue_of_the_data_is_chosen_for_each_missing_script():
    missing = MissingScripts()
    for text in ("Hello there", "ქართული ენა", "კიდევ ერთი", "አማርኛ ቋንቋ ነው", "ა"):
        missing.add((Turn("user", text), Turn("assistant", "Yes.")))
    assert [turns[-1].text for turns in missing.found] == ["ქართული ენა", "አማርኛ ቋንቋ ነው"]
