"""Import of a source: recognise it, read it, check each dialogue, write lines, report.

Every line is {"messages": [{"role": …, "content": …}, …]} and passes the checks of `validate-data`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convo_cli.config.schema import DataConfig, SpeakersConfig
from convo_cli.data.checks.exact import LineRules, read_decoded
from convo_cli.data.dialogue import Turn, as_messages, tool_definitions
from convo_cli.data.problems import Problem
from convo_cli.data.repair.values import repair_value
from convo_cli.data.shapes.items.other_replies import KEY as REFERENCES
from convo_cli.errors import DataError, UsageError, typeable
from convo_cli.events import Emit, ignore
from convo_cli.importers.cleaning import cleaned, cleaned_value
from convo_cli.importers.messages import Conversation, Counts, ImportReport, Message, Speaker
from convo_cli.importers.people import People
from convo_cli.importers.personal_data import count_personal
from convo_cli.importers.sessions import SessionRules, dialogues_of
from convo_cli.importers.source_files import Given, Source
from convo_cli.importers.source_kinds import KINDS, kind_of_source
from convo_cli.storage.snapshot import Snapshot

DEFAULT_PAUSE = 6 * 3600.0
_NUM_TRIED_LINES = 5
_REPEATED = "empty and repeated references"


@dataclass(frozen=True)
class ImportOptions:
    """What the user chose. ``pause`` is in seconds."""

    assistants: tuple[str, ...] = ()
    format: str | None = None
    pause: float = DEFAULT_PAUSE
    keep_names: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    only: str = ""


@dataclass
class _Written:
    write: Callable[[bytes], object]
    num_dialogues: int = 0
    num_turns: int = 0
    personal: Counter[str] = field(default_factory=Counter)

    def add(self, turns: list[Turn]) -> None:
        spoken = [turn for turn in turns if turn.role != "tools"]
        line: dict[str, Any] = {"messages": as_messages(spoken)}
        if (definitions := tool_definitions(turns)) is not None:
            line["tools"] = definitions
        for turn, message in zip(spoken, line["messages"], strict=True):
            if not turn.is_trained:
                message["train"] = False
            if turn.references:
                message[REFERENCES] = list(turn.references)
            count_personal("\n".join((turn.text, *turn.references)), self.personal)
        self.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self.num_dialogues += 1
        self.num_turns += len(spoken)


class _Import:
    """The dialogues of one source on their way to the output."""

    def __init__(self, options: ImportOptions, written: _Written) -> None:
        self.counts = Counts()
        self.people = People(options.assistants)
        self.written = written
        self.first_problem: Problem | None = None
        self._options = options
        self._rules = LineRules(_data_config(options), "assistant")
        self._first_time: float | None = None
        self._last_time: float | None = None

    @property
    def times(self) -> tuple[float | None, float | None]:
        return self._first_time, self._last_time

    def add(self, item: Any) -> None:
        """Write the dialogues of a conversation, or the dialogue of a JSON value."""
        if not isinstance(item, Conversation):
            try:
                value = cleaned_value(item, self.counts)
            except RecursionError:
                self.counts.left_out["values that are nested too deeply"] += 1
            else:
                self._add_value(value)
            return
        messages = self._counted(item)
        if not self._options.assistants:
            for _ in messages:
                pass
            return
        rules = SessionRules(
            self.people.is_assistant, self._options.pause, self._options.keep_names
        )
        chat = Conversation(item.title, messages)
        for dialogue in dialogues_of(chat, rules, self.counts):
            self._add_value({"messages": dialogue})

    def _counted(self, chat: Conversation) -> Iterator[Message]:
        before: float | None = None
        for message in chat.messages:
            text = cleaned(message.text, self.counts).strip()
            speaker = self.people.add(message.speaker)
            if not text:
                self.counts.dropped["no text"] += 1
                continue
            if message.time is not None:
                self._first_time = min(self._first_time or message.time, message.time)
                self._last_time = max(self._last_time or message.time, message.time)
                self.counts.num_backward += before is not None and message.time < before
                before = message.time
            yield Message(speaker, text, message.time)

    def _add_value(self, value: Any) -> None:
        errors: list[Problem] = []
        read = read_decoded(value, self._rules, lambda problem: _keep_error(problem, errors))
        if errors and {error.code for error in errors} == {REFERENCES}:
            # Nothing can repair them later, because a line that is left out is not in the output.
            repaired: list[Problem] = []
            value = repair_value(value, self._rules.data_config)
            read = read_decoded(value, self._rules, lambda problem: _keep_error(problem, repaired))
            self.counts.dropped[_REPEATED] += len(errors) if not repaired else 0
            errors = repaired
        if errors or read is None:
            self.first_problem = self.first_problem or errors[0]
            self.counts.left_out[errors[0].code] += 1
        elif read[0].is_excluded:
            self.counts.left_out["dialogues that are not trained on"] += 1
        else:
            self.written.add([turn for _, turn in read[1].turns])


def import_source(
    path: Path,
    write: Callable[[bytes], object],
    options: ImportOptions,
    emit: Emit = ignore,
) -> ImportReport:
    """Pass every dialogue of a source to ``write``, one line each.

    UsageError for an unknown source or assistant, DataError for a source without dialogues,
    ChangedError for one that changed meanwhile; then discard what was written.
    """
    before = Snapshot.of(path)
    written = _Written(write)
    work = _Import(options, written)
    given = Given(options.assistants, options.columns, options.only)
    with closing(Source(path, emit, given)) as source:
        _require_content(source)
        if options.format is None:
            _require_no_dialogues(source)
        name = kind_of_source(source, options.format)
        for item in KINDS[name].read(source, work.counts):
            work.add(item)
        if work.people.counts or not written.num_dialogues:
            work.people.require_usable(source.where, work.counts)
        _require_dialogues(source, work)
    before.require_unchanged()
    first_time, last_time = work.times
    return ImportReport(
        format=name,
        num_dialogues=written.num_dialogues,
        num_turns=written.num_turns,
        speakers=tuple(
            Speaker(speaker, "assistant" if work.people.is_assistant(speaker) else "user", number)
            for speaker, number in work.people.counts.most_common()
        ),
        dropped={reason: number for reason, number in work.counts.dropped.most_common() if number},
        left_out=dict(work.counts.left_out.most_common()),
        num_continuations=work.counts.num_continuations,
        num_backward=work.counts.num_backward,
        notes=tuple(work.counts.notes),
        num_removed_characters=work.counts.num_removed_characters,
        first_time=first_time,
        last_time=last_time,
        personal={kind: number for kind, number in written.personal.items() if number},
    )


def _keep_error(problem: Problem, errors: list[Problem]) -> None:
    if problem.severity == "error":
        errors.append(problem)


def _data_config(options: ImportOptions) -> DataConfig:
    """Return the reader's rules; names given with --assistant are assistants of a dump, too."""
    known = SpeakersConfig()
    speakers = known.model_copy(update={"assistant": (*known.assistant, *options.assistants)})
    return DataConfig(train=("import",), speakers=speakers, reasoning="keep")


def _require_content(source: Source) -> None:
    if source.is_single and not source.head(source.names[0]).strip():
        raise DataError(f"{source.where}: the file is empty", hint="export or copy it again")
    if not source.names:
        raise DataError(f"{source.where}: there are no files in it", hint="export or copy it again")


def _require_no_dialogues(source: Source) -> None:
    """Raise UsageError for JSON Lines of dialogues, which need no import."""
    if not source.is_single:
        return
    text = source.head_text(source.names[0])
    lines = [line for line in text.split("\n")[:-1] or [text] if line.strip()][:_NUM_TRIED_LINES]
    errors: list[Problem] = []
    rules = LineRules(DataConfig(train=("import",), reasoning="keep"), "assistant")
    try:
        for line in lines:
            read_decoded(json.loads(line), rules, lambda problem: _keep_error(problem, errors))
    except (ValueError, RecursionError):
        return
    if lines and not errors:
        raise UsageError(
            f"{source.where}: it contains JSON Lines of dialogues, which need no import",
            hint=f"convo validate-data {typeable(source.path)}",
        )


def _require_dialogues(source: Source, work: _Import) -> None:
    if work.written.num_dialogues:
        return
    reasons = ", ".join(f"{reason}: {number:,}" for reason, number in work.counts.left_out.items())
    hint = (
        "choose another person with --assistant, or a longer pause: --pause 1d"
        if work.people.counts
        else None
    )
    if work.first_problem is not None:
        hint = f"the first one: {work.first_problem.message}"
    raise DataError(
        f"{source.where}: no dialogue is left" + (f" ({reasons})" if reasons else ""), hint=hint
    )
