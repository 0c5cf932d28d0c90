"""Encoding of dialogue files into parts of a token store, read and checked a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

from convo_cli.background import one_ahead
from convo_cli.config.schema import RunConfig
from convo_cli.data.dialogue import Dialogue, chunks
from convo_cli.data.omissions import Omissions
from convo_cli.data.problems import LongTurn, Problem, ProblemSink
from convo_cli.errors import DataError
from convo_cli.events import Emit, Notice, Progress
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.preflight import find_untrained
from convo_cli.prepare.stored import EarlierStore, find_encoded
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.tokens.store import LEFT_OUT, NO_TARGET, USER_TARGET, Encoded, TokenStore
from convo_cli.wording import counted, quoted

_CHECKED_DIALOGUES = 64  # rendered by transformers as well, and read back


def encode_files(
    inputs: Inputs,
    data_set: str,
    encoder: DialogueEncoder,
    found: ProblemSink,
    *,
    omissions: Sequence[Omissions],
    stage: str,
    max_dialogues: int | None,
    total: int | None,
    earlier: Sequence[EarlierStore],
) -> Iterator[TokenStore]:
    """Encode every dialogue of a data set, or the first ``max_dialogues``, a chunk at a time.

    ``omissions``, one for each file, count what is not trained on (see `Inputs.read`). Problems
    that prevent training on a dialogue go to ``found``. Dialogues are taken from ``earlier`` stores
    if encoding them would give the same. ModelError if transformers renders the first
    dialogues differently from training, FileChangedError if a file changed since it was hashed.
    """
    config, emit = inputs.config, inputs.emit
    paths = [file.path for file in inputs.files_of(data_set)]

    def tasks(
        stream: Iterator[Dialogue],
    ) -> Iterator[Callable[[], list[tuple[Dialogue, Encoded | Problem]]]]:
        num_read = 0
        for chunk in chunks(_checked(stream, encoder, emit)):
            known = [
                find_encoded(earlier, number, dialogue, encoder.max_length)
                for number, dialogue in enumerate(chunk, num_read)
            ]
            yield partial(_encode_rest, chunk, known, config, encoder)
            num_read += len(chunk)

    done = 0
    emit(Progress(stage, done, total, "dialogues"))
    with inputs.read(data_set, omissions=omissions) as dialogues:
        # Tokenizers release Python's lock: while a chunk is encoded, the next one is read and the
        # one before it stored.
        for chunk in one_ahead(tasks(islice(dialogues, max_dialogues))):
            yield to_store(chunk, config, encoder, found, paths)
            done += len(chunk)
            emit(Progress(stage, done, total, "dialogues"))
    if done == 0:
        raise DataError(
            "the data contains no dialogue to train on",
            hint='dialogues that say "train": false (or "weight": 0, "loss": false) are left out',
        )


def _encode_rest(
    chunk: Sequence[Dialogue],
    known: Sequence[Encoded | None],
    config: RunConfig,
    encoder: DialogueEncoder,
) -> list[tuple[Dialogue, Encoded | Problem]]:
    """Return each dialogue with its known encoding, or with a new one."""
    unknown = [dialogue for dialogue, one in zip(chunk, known, strict=True) if one is None]
    fresh = iter(encode(unknown, config, encoder))
    return [(dialogue, one or next(fresh)) for dialogue, one in zip(chunk, known, strict=True)]


def encode(
    dialogues: Sequence[Dialogue], config: RunConfig, encoder: DialogueEncoder
) -> list[Encoded | Problem]:
    """Encode dialogues; user turns become targets only if a step of the run is trained on them."""
    found = encoder.encode_all(dialogues, config.dialogue.train_on, config.dialogue.long_turns)
    if not trains_on_users(config):
        for example in chain.from_iterable(
            one.examples for one in found if isinstance(one, Encoded)
        ):
            example.targets[example.targets == USER_TARGET] = NO_TARGET
    return found


def to_store(
    encoded: Sequence[tuple[Dialogue, Encoded | Problem]],
    config: RunConfig,
    encoder: DialogueEncoder,
    found: ProblemSink,
    paths: Sequence[str] = (),
) -> TokenStore:
    """Build a store of the dialogues; problems that prevent training on one go to ``found``."""
    problems = {number: one for number, (_, one) in enumerate(encoded) if isinstance(one, Problem)}
    part = TokenStore.build(
        [(dialogue, one if isinstance(one, Encoded) else LEFT_OUT) for dialogue, one in encoded],
        paths,
    )
    dialogues = [dialogue for dialogue, _ in encoded]
    problems |= find_untrained(dialogues, part, config.dialogue.train_on, encoder.stop_ids)
    for _, problem in sorted(problems.items()):  # in the order of the data, however it is cut
        if not (isinstance(problem, LongTurn) and config.dialogue.long_turns == "drop"):
            found(problem)
    return part


def _checked(
    dialogues: Iterator[Dialogue], encoder: DialogueEncoder, emit: Emit
) -> Iterator[Dialogue]:
    """Yield the dialogues, and prove of the first ones that transformers renders them alike.

    Warns if ids decode to other text.
    """
    num_changed, example = 0, ""
    for dialogue in islice(dialogues, _CHECKED_DIALOGUES):
        encoder.require_parity(dialogue.turns)
        for turn in dialogue.turns:
            if (read := encoder.reads_back(turn.text)) != turn.text:
                num_changed += 1
                example = example or (
                    f"{dialogue.where} says {quoted(turn.text, 80)}, but the model will read "
                    f"{quoted(read, 80)}"
                )
        yield dialogue
    if num_changed:
        message = (
            f"the tokenizer does not keep every text as it is: {example} "
            f"({counted(num_changed, 'turn')} of the first dialogues)"
        )
        emit(Notice(message, is_warning=True))
    yield from dialogues


def trains_on_users(config: RunConfig) -> bool:
    """Return whether a step of the run is trained on user turns."""
    return config.dialogue.train_on == "all" or config.dialogue.user_turns_until > 0
