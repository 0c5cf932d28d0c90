"""Facts about training data that evaluations use: replies, copies, and the role that opens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from convo_cli.data.dialogue import HEAD_ROLES, Dialogue
from convo_cli.metrics.floors import TrainingReplies, training_replies

OF_THE_RUN = "the run's training data"


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """Counts of some dialogues, and a sample of their replies."""

    replies: TrainingReplies | None = None
    """None if there are none."""
    num_dialogues: int = 0
    num_opened_by_assistant: int = 0
    """Dialogues in which the assistant speaks first."""
    num_replies: int = 0
    """Replies to a turn of the user."""
    num_copies: int = 0
    """Replies that copy that turn."""

    @property
    def share_opened_by_assistant(self) -> float:
        """Return the share of the dialogues in which the assistant speaks first."""
        return self.num_opened_by_assistant / max(1, self.num_dialogues)

    @property
    def share_of_copies(self) -> float:
        """Return the share of the replies that copy the user's turn before them."""
        return self.num_copies / max(1, self.num_replies)


def collect_facts(dialogues: Iterable[Dialogue], source: str) -> TrainingFacts:
    """Count dialogues in one pass; ``source`` names them, such as `OF_THE_RUN`.

    A turn with a tool call is no reply.
    """
    num_dialogues = num_opened_by_assistant = num_replies = num_copies = 0

    def counted() -> Iterator[list[tuple[str, str]]]:
        nonlocal num_dialogues, num_opened_by_assistant, num_replies, num_copies
        for dialogue in dialogues:
            turns = [turn for turn in dialogue.turns if turn.role not in HEAD_ROLES]
            num_dialogues += 1
            num_opened_by_assistant += bool(turns) and turns[0].role == "assistant"
            for before, turn in pairwise(turns):
                if before.role == "user" and turn.is_reply:
                    num_replies += 1
                    num_copies += before.text.strip() == turn.text.strip()
            yield [(turn.role, turn.text) for turn in dialogue.turns if not turn.is_call]

    replies = training_replies(counted(), source)
    return TrainingFacts(replies, num_dialogues, num_opened_by_assistant, num_replies, num_copies)
