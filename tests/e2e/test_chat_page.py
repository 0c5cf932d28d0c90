"""The chat page in a browser: what a person does there, against a server with chosen replies."""

from __future__ import annotations

import json

import pytest

from tests.browsing import Browsing
from tests.scripted_server import CONTRACT, Answer, ScriptedServer

pytestmark = pytest.mark.slow
ENTER, ESCAPE, TAB, SHIFT = "\ue007", "\ue00c", "\ue004", "\ue008"


def messages(server: ScriptedServer) -> list[tuple[str, str]]:
    """The messages of the last request."""
    return [(one["role"], one["content"]) for one in server.requests[-1]["messages"]]


def downloaded(page: Browsing, downloads, button: str = "#download") -> str:
    for old in downloads.iterdir():
        old.unlink()
    page.click(button)
    page.until(lambda: list(downloads.glob("*.jsonl")))
    (file,) = downloads.glob("*.jsonl")
    return str(file)


def lines_of(file: str) -> list[dict]:
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_a_reply_appears_while_it_is_written(page, server):
    server.answers = [Answer([f"word{number} " for number in range(30)], pause=0.05)]
    page.start("Hello!")
    page.until(lambda: "word2" in page.replies()[0])
    assert page.is_busy()
    assert "word29" not in page.replies()[0]
    page.until(lambda: not page.is_busy())
    assert page.replies() == ["".join(f"word{number} " for number in range(30))]
    assert "30 tokens" in page.text(".facts")
    assert "word29" in page.text("#status")  # read aloud once, at the end
    assert page.focused == "message"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_stream_may_be_cut_anywhere(page, server, line_end):
    pieces = [
        "Größe ",
        "字",
        "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}",
        "a\nb\r\nc\\",
        "\u2028 end",
    ]
    server.answers = [Answer(pieces, bytes_at_once=1, line_end=line_end)]
    assert page.say("Hello!") == "".join(pieces)


@pytest.mark.parametrize("how", ["key", "button"])
def test_a_stopped_reply_keeps_its_beginning_and_frees_the_server(page, server, how):
    server.answers = [Answer(["Some ", *["more "] * 500], pause=0.02)]
    page.start("Hello!")
    page.until(lambda: "more" in page.replies()[0])
    if how == "key":
        page.press(ESCAPE)
    else:
        page.click("#stop")
    page.until(lambda: not page.is_busy())
    page.until(lambda: server.num_left == 1)
    kept = page.replies()[0]
    assert kept.startswith("Some more")
    assert "stopped" in page.text(".facts")
    assert page.focused == "message"
    page.say("Go on")
    assert messages(server)[1] == ("assistant", kept.strip())


def test_a_retry_asks_again_with_another_seed_and_keeps_both_replies(page, server):
    page.write("#seed", "7")
    server.answers = [Answer(["First"]), Answer(["Second"])]
    page.say("Hello!")
    page.click("#retry-0-0")
    page.until(lambda: page.replies() == ["Second"] and not page.is_busy())
    first, second = server.requests
    assert first["messages"] == second["messages"]
    assert (first["seed"], second["seed"]) == (7, 8)
    page.click("#other-0-0")
    assert page.replies() == ["First"]
    page.say("Next")
    assert messages(server)[1] == ("assistant", "First")


def test_a_corrected_reply_replaces_the_reply_in_the_history(page, server):
    server.answers = [Answer(["Wrong"])]
    page.say("Hello!")
    page.click("#edit-0-0")
    page.answer("Not kept", ok=False)
    assert page.replies() == ["Wrong"]
    page.click("#edit-0-0")
    page.answer("Right")
    assert page.replies() == ["Right"]
    assert "edited" in page.text(".facts")
    page.say("Next")
    assert messages(server) == [("user", "Hello!"), ("assistant", "Right"), ("user", "Next")]


def test_an_edited_message_is_sent_again_without_what_came_after_it(page, server):
    page.say("One")
    page.say("Two")
    page.click("#edit-0")
    page.answer("Eins")
    page.until(lambda: not page.is_busy())
    assert page.texts(".user .text") == ["Eins"]
    assert messages(server) == [("user", "Eins")]


def test_the_system_prompt_and_the_sampling_reach_the_request(page, server):
    page.click("#show-settings")
    assert page.find("#temperature").get_attribute("placeholder") == "0.7"
    assert page.find("#max_tokens").get_attribute("placeholder") == "64"
    page.say("Plain")
    assert set(server.requests[-1]) == {
        *("model", "messages", "stream", "stream_options", "prompt_cache_key")
    }
    page.find("#system").send_keys(" Be brief. ")
    values = {"temperature": 0.25, "top_p": 0.5, "top_k": 3, "min_p": 0.125}
    values |= {"repetition_penalty": 1.5, "max_tokens": 9, "seed": 11}
    for name, value in values.items():
        page.find(f"#{name}").send_keys(str(value), TAB)
    page.say("Hello!")
    request = server.requests[-1]
    assert {name: request[name] for name in values} == values
    assert messages(server)[0] == ("system", "Be brief.")


def test_a_value_out_of_range_is_shown_and_not_sent(page, server):
    page.write("#temperature", "99")
    page.write("#message", "Hello!")
    page.find("#message").send_keys(ENTER)
    assert page.focused == "temperature"
    assert server.requests == []
    page.write("#temperature", "1")
    assert page.find("#message").get_attribute("value") == "Hello!"
    page.find("#message").send_keys(ENTER)
    page.until(lambda: server.requests)


def test_conversations_survive_a_reload(page, server):
    page.say("About trees")
    page.click("#good-0-0")
    page.click("#new")
    assert page.texts(".user") == []
    page.say("About birds")
    page.click("#rename-0")
    page.answer("Birds")
    page.open()
    assert page.texts(".open-chat") == ["Birds", "About trees"]
    assert page.text("h1") == "Birds"
    page.click("#chat-1")
    assert page.texts(".user .text") == ["About trees"]
    assert page.find("#good-0-0").get_attribute("aria-pressed") == "true"
    page.click("#remove-1")
    page.answer(None)
    assert page.texts(".open-chat") == ["Birds"]
    page.open()
    assert page.texts(".open-chat") == ["Birds"]


def test_a_reload_in_a_reply_keeps_its_beginning(page, server):
    server.answers = [Answer(["Some ", *["more "] * 500], pause=0.02)]
    page.start("Hello!")
    page.until(lambda: "more" in page.replies()[0])
    page.open()
    assert page.replies()[0].startswith("Some more")
    assert "stopped" in page.text(".facts")


def test_a_reply_continues_while_another_conversation_is_shown(page, server):
    server.answers = [Answer([f"{number} " for number in range(40)], pause=0.03)]
    page.start("Count")
    page.until(lambda: "1 " in page.replies()[0])
    page.click("#new")
    assert page.say("Other") == "Good morning."
    page.driver.find_elements("css selector", ".open-chat")[1].click()
    page.until(lambda: not page.is_busy())
    assert page.replies() == ["".join(f"{number} " for number in range(40))]


def test_two_models_answer_side_by_side_and_each_sees_its_own_replies(page, server):
    page.choose("#model-1", "other")
    server.answers = [Answer(["One"]), Answer(["Two"])]
    page.say("Hello!")
    by_model = {request["model"]: page.replies()[at] for at, request in enumerate(server.requests)}
    shown = dict(zip(page.texts(".reply .name"), page.replies(), strict=True))
    assert set(shown.values()) == {"One", "Two"}
    assert shown.keys() == by_model.keys() == {"tiny", "other"}
    page.say("Next")
    for request in server.requests[2:]:
        assert request["messages"][1]["content"] == shown[request["model"]]
    assert len({request["prompt_cache_key"] for request in server.requests}) == 2

    left, right = [one.rect for one in page.all(".reply")][:2]
    assert left["y"] == right["y"]
    assert right["x"] > left["x"]
    page.size(360, 740)
    left, right = [one.rect for one in page.all(".reply")][:2]
    assert left["x"] == right["x"]
    assert right["y"] > left["y"]


def marked(page: Browsing, downloads) -> list[object]:
    (line,) = lines_of(downloaded(page, downloads))
    return [one.get("train") for one in line["messages"] if one["role"] == "assistant"]


def test_marks_decide_what_is_trained_on(page, server, downloads):
    for text in ("One", "Two", "Three"):
        page.say(text)
    assert marked(page, downloads) == [None, None, None]
    page.click("#bad-0-0")
    assert marked(page, downloads) == [False, None, None]
    page.click("#good-1-0")
    assert marked(page, downloads) == [False, True, False]
    assert page.find("#good-1-0").get_attribute("aria-pressed") == "true"
    page.click("#good-1-0")
    assert marked(page, downloads) == [False, None, None]
    page.click("#edit-2-0")
    page.answer("Corrected")
    assert marked(page, downloads) == [False, False, True]
    page.click("#edit-0-0")
    page.answer("Corrected, so no longer bad")
    assert marked(page, downloads) == [True, False, True]


def test_a_good_reply_of_one_model_leaves_out_that_of_the_other(page, server, downloads):
    page.choose("#model-1", "other")
    page.say("Hello!")
    page.click("#good-0-1")
    left, right = lines_of(downloaded(page, downloads))
    assert left["train"] is left["messages"][1]["train"] is False
    assert right["messages"][1]["train"] is True
    assert [one["convo_session"]["model"] for one in (left, right)] == ["tiny", "other"]
    assert left["convo_session"]["contract"] == CONTRACT


def test_the_keyboard_is_enough(page, server):
    assert page.focused == "message"
    page.press("One", SHIFT + ENTER + SHIFT, "line")
    assert server.requests == []
    page.press(ENTER)
    page.until(lambda: len(server.requests) == 1 and not page.is_busy())
    assert messages(server) == [("user", "One\nline")]
    assert page.focused == "message"
    page.run("document.querySelector('.skip').focus()")
    seen = []
    while page.focused != "BODY":
        ring = """const one = document.activeElement, box = one.closest(".box") ?? one;
        return parseFloat(getComputedStyle(one).outlineWidth) > 1
          || parseFloat(getComputedStyle(box).outlineWidth) > 1"""
        assert page.run(ring), page.focused
        seen.append(page.focused)
        assert len(seen) < 60
        page.press(TAB)
    order = ["A", "show-settings", "model-0", "model-1", "new", "chat-0", "rename-0", "remove-0"]
    order += ["download", "download-all", "log", "edit-0", "good-0-0", "bad-0-0", "edit-0-0"]
    order += ["retry-0-0", "message", "send"]
    assert seen == order

    page.find("#good-0-0").send_keys(" ")
    assert page.find("#good-0-0").get_attribute("aria-pressed") == "true"
    assert page.focused == "good-0-0"
    page.press(TAB, "")
    page.find("#edit-0-0").send_keys(ENTER)
    page.until(lambda: page.focused == "dialog-area")
    page.press("!", TAB, "")
    page.press(ENTER)
    page.until(lambda: page.replies() == ["Good morning.!"])
    page.find("#show-settings").send_keys(ENTER)
    assert page.focused == "system"


def test_enter_in_an_unfinished_composition_sends_nothing(page, server):
    composing = """document.getElementById("message").dispatchEvent(
      new KeyboardEvent("keydown", {key: "Enter", isComposing: true, bubbles: true}))"""
    page.write("#message", "こんに")
    page.run(composing)
    assert server.requests == []
    assert page.find("#message").get_attribute("value") == "こんに"


def test_what_is_typed_in_a_reply_waits(page, server):
    server.answers = [Answer(["Some ", *["more "] * 30], pause=0.02)]
    page.start("Hello!")
    page.press("next", ENTER)
    assert len(server.requests) == 1
    page.until(lambda: not page.is_busy())
    assert page.find("#message").get_attribute("value") == "next"
    assert page.focused == "message"
