"""Laws of a chat session under any actions of the user, which hypothesis chooses."""

from __future__ import annotations

import copy
import json
from typing import Any, cast

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from convo_cli.chat.session import ChatSession
from convo_cli.config.schema import DataConfig, GenerationSettings
from convo_cli.data.dialogue import Turn, is_excluded
from convo_cli.data.problems import refuse
from convo_cli.data.shapes.turns import read_value
from convo_cli.data.strict_json.decoder import decode
from convo_cli.errors import DataError, ModelError
from convo_cli.interrupts import Interrupt
from tests.unit.chat.fakes import Scripted, ignore

SETTINGS = GenerationSettings()
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["<|end|>", " ", "", "\r\n", "\x00\x1b[2J", "\ud800", "\u2028", "user: hi", "/reset", "true"]
)
STOPS = (KeyboardInterrupt(), Interrupt(15), ModelError("broken"), DataError("refused"))
CONTRACT = "0" * 64


class Shown(list[str]):
    """What the user sees of a reply; may raise after some pieces."""

    def __init__(self, error: BaseException | None, after: int) -> None:
        super().__init__()
        self.error, self.after = error, after

    def __call__(self, piece: str) -> None:
        if self.error is not None and len(self) == self.after:
            raise self.error
        self.append(piece)


class Chats(RuleBasedStateMachine):
    """A user who says, retries, undoes, edits, judges, stops and resets in any order."""

    def __init__(self) -> None:
        super().__init__()
        encoder: Any = type("Encoder", (), {"max_length": 9})
        self.model = Scripted(encoder)
        self.session = ChatSession(cast(Any, self.model), SETTINGS)
        self.session.__dict__["contract"] = CONTRACT

    @property
    def state(self) -> tuple[Any, ...]:
        session = self.session
        return session.system, session.exchanges, session.turns, session.num_characters

    def refused(self, act: Any, *arguments: Any) -> bool:
        """Do something; after a refusal everything is as it was."""
        before = copy.deepcopy(self.state)
        try:
            act(*arguments)
        except DataError:
            assert self.state == before
            return True
        return False

    @rule(text=TEXTS, reply=TEXTS)
    def say_and_undo(self, text: str, reply: str) -> None:
        before = copy.deepcopy(self.state)
        self.model.replies[:] = [reply]
        if not self.refused(self.session.say, text, ignore):
            assert self.session.last is not None
            said = self.session.exchanges[-1].message
            assert self.session.undo() == said
            assert self.state == before

    @rule(text=TEXTS, reply=TEXTS)
    def say(self, text: str, reply: str) -> None:
        self.model.replies[:] = [reply]
        num_before = len(self.session.exchanges)
        is_refused = self.refused(self.session.say, text, ignore)
        assert len(self.session.exchanges) == num_before + (not is_refused)

    @rule(text=TEXTS, reply=TEXTS, error=st.sampled_from(STOPS), after=st.integers(0, 3))
    def stop(self, text: str, reply: str, error: BaseException, after: int) -> None:
        self.model.replies[:] = [reply]
        before, shown = copy.deepcopy(self.state), Shown(error, after)
        try:
            self.session.say(text, shown)
        except (KeyboardInterrupt, ModelError, DataError) as raised:
            if isinstance(raised, KeyboardInterrupt) and self.state != before:
                self.session.undo()
            assert self.state == before

    @precondition(lambda self: self.session.exchanges)
    @rule(reply=TEXTS, error=st.sampled_from((None, *STOPS)), after=st.integers(0, 3))
    def retry(self, reply: str, error: BaseException | None, after: int) -> None:
        self.model.replies[:] = [reply]
        before, earlier = copy.deepcopy(self.state), self.session.exchanges[:-1]
        old = list(self.session.alternatives)
        raised: BaseException | None = None
        try:
            self.session.retry(Shown(error, after))
        except (KeyboardInterrupt, ModelError, DataError) as stopped:
            raised = stopped
        if raised is None:
            assert len(self.session.alternatives) == len(old) + 1
        elif not isinstance(raised, KeyboardInterrupt):
            assert self.state == before
        assert self.session.exchanges[:-1] == earlier
        assert self.session.alternatives[: len(old)] == old
        assert self.session.exchanges[-1].message == before[1][-1].message

    @rule(number=st.integers(-1, 4))
    def choose(self, number: int) -> None:
        if not self.refused(self.session.choose, number):
            assert self.session.turns[-1].text == self.session.alternatives[number - 1]

    @rule(number=st.integers(-1, 6), text=TEXTS)
    def edit(self, number: int, text: str) -> None:
        messages = [one.message for one in self.session.exchanges]
        if not self.refused(self.session.edit, number, text):
            edited = self.session.exchanges[number - 1].chosen_reply
            assert (edited.is_good, edited.reply) == (True, None)
        assert [one.message for one in self.session.exchanges] == messages

    @rule(is_good=st.booleans())
    def judge(self, is_good: bool) -> None:
        self.refused(self.session.judge, is_good)

    @rule()
    def undo(self) -> None:
        self.refused(self.session.undo)

    @rule(text=TEXTS | st.none())
    def set_system(self, text: str | None) -> None:
        exchanges = self.session.exchanges
        self.session.set_system(text)
        assert self.session.exchanges == exchanges

    @rule()
    def reset(self) -> None:
        system = self.session.system
        self.session.reset()
        assert [turn.text for turn in self.session.turns] == ([system] if system else [])

    @invariant()
    def roles_alternate_after_the_system_turn(self) -> None:
        roles = [turn.role for turn in self.session.turns]
        spoken = roles[roles[:1] == ["system"] :]
        assert spoken == ["user", "assistant"] * (len(spoken) // 2)
        assert all(turn.text for turn in self.session.turns if turn.role != "assistant")

    @invariant()
    def the_size_is_that_of_all_texts(self) -> None:
        texts = [self.session.system] if self.session.system else []
        for one in self.session.exchanges:
            texts += [one.message, *(reply.text for reply in one.replies)]
        assert self.session.num_characters == sum(64 + len(text) for text in texts)

    @invariant()
    def the_model_read_whole_exchanges_that_were_said(self) -> None:
        for history in self.model.asked[-1:]:
            assert history[-1][0] == "user"
            spoken = [role for role, _ in history if role != "system"]
            assert spoken == [*["user", "assistant"] * (len(spoken) // 2), "user"]
            assert len(spoken) <= 9

    @invariant()
    def what_is_trained_on_follows_from_the_judgements(self) -> None:
        judged = [one.chosen_reply.is_good for one in self.session.exchanges]
        replies = [turn for turn in self.session.turns if turn.role == "assistant"]
        for is_good, turn in zip(judged, replies, strict=True):
            assert turn.is_trained == (is_good is True or (is_good is None and True not in judged))

    @invariant()
    def the_line_is_training_data_and_the_session_again(self) -> None:
        if not self.session.exchanges:
            return
        line = self.session.to_line()
        restored = restore(self.model, line)
        assert restored.turns == self.session.turns
        assert restored.to_line()["messages"] == line["messages"]
        assert restored.to_line()["convo_session"]["bad"] == line["convo_session"]["bad"]
        raw = json.dumps(line, ensure_ascii=False).encode()
        reading = read_value(decode(raw, refuse), DataConfig(train=("x",)))
        assert reading is not None
        turns = [turn for _, turn in reading.turns]
        expected = [turn for turn in self.session.turns if turn.text]
        if line.get("train") is False:
            assert is_excluded(turns)
            assert not any(t.is_trained for t in expected if t.role == "assistant")
            expected = [Turn(turn.role, turn.text, False) for turn in expected]
        assert turns == expected
        assert reading.unread == []


def restore(model: Any, line: dict[str, Any]) -> ChatSession:
    """`ChatSession.from_line` for a model without an encoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convo_cli.chat.session.contract_sha256", lambda encoder: CONTRACT)
        return ChatSession.from_line(line, model)


TestChats = Chats.TestCase
TestChats.settings = hypothesis.settings(
    hypothesis.settings.get_profile("quick"), stateful_step_count=30
)
