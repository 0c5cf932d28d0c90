"""The dialogues that get a reply, and the history that the model is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Dialogue, Role, Turn
from convo_cli.errors import DataError
from convo_cli.evaluation.replies import reply_to_all, spoken
from convo_cli.evaluation.shared_replies import SharedReplies
from convo_cli.events import SampleReply
from convo_cli.model.decoding.generator import Reply


def talk(*texts, line=0):
    roles: tuple[Role, Role] = ("user", "assistant")
    return Dialogue(tuple(Turn(roles[index % 2], text) for index, text in enumerate(texts)), line)


# Replying


def test_a_turn_that_the_data_excludes_is_no_reference():
    earlier = Dialogue((*talk("q", "a", "r").turns, Turn("assistant", "rude", is_trained=False)))
    parrot: Any = Parrot()
    (reply,) = reply_to_all(parrot, [earlier], GenerationSettings(), SharedReplies())
    assert reply.reference == "a"


def test_a_reply_is_compared_with_all_references_of_its_turn():
    answered = Turn("assistant", "a", references=("b", "c"))
    parrot: Any = Parrot()
    (reply,) = reply_to_all(
        parrot, [Dialogue((Turn("user", "q"), answered))], GenerationSettings(), SharedReplies()
    )
    assert (reply.reference, reply.other_references) == ("a", ("b", "c"))


def test_a_tool_call_in_the_history_keeps_its_text():
    call = '{"tool_calls":[]}'
    turns = (
        Turn("user", "q"),
        Turn("assistant", "One moment.", tool_data=call),
        Turn("tool", "5", tool_data='{"tool_call_id":"c"}'),
        Turn("assistant", "", tool_data=call),
    )
    assert spoken(turns) == (
        ("user", "q"),
        ("assistant", f"One moment.\n{call}"),
        ("tool", "5"),
        ("assistant", call),
    )


class Parrot:
    """Replies with the last text of its history, and remembers every history and its settings."""

    def __init__(self):
        self.calls = []

    def query(self, history, settings):
        self.calls.append((tuple(history), settings))
        if history[-1].text == "too long":
            raise DataError("the last message is 99 tokens")
        return SimpleNamespace(text=history[-1].text, size=1)

    def answer(self, queries, settings, *, on_reply, on_token):
        for done in range(1, len(queries) + 1):
            on_reply(done)
        return [Reply(query.text, (1,), query.text != "cut", 0) for query in queries]


def test_the_model_answers_the_last_assistant_turn_given_the_turns_before_it():
    parrot: Any = Parrot()
    done: list[int] = []
    dialogues = [
        talk("q1", "a1", "q2", "a2", "thanks"),
        Dialogue((Turn("system", "s"), Turn("user", "cut"), Turn("assistant", "a"))),
    ]
    replies = reply_to_all(
        parrot,
        dialogues,
        GenerationSettings(temperature=1.5, top_k=7),
        SharedReplies(show=done.append),
    )
    assert replies == [
        SampleReply((("user", "q1"), ("assistant", "a1"), ("user", "q2")), "a2", "q2", True),
        SampleReply((("system", "s"), ("user", "cut")), "a", "cut", False),
    ]
    assert [settings for _, settings in parrot.calls] == [
        GenerationSettings(temperature=0.0, top_k=7)
    ] * 2
    assert done == [1, 2]


def test_a_message_longer_than_the_window_is_left_out_and_counted_as_progress():
    done = []
    parrot: Any = Parrot()
    replies = reply_to_all(
        parrot,
        [talk("too long", "a"), talk("q", "a")],
        GenerationSettings(),
        SharedReplies(show=done.append),
    )
    assert [reply.reply for reply in replies] == ["q"]
    assert done == [1, 2]
