"""Encoding of dialogue files into parts of a token store, read and checked a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

import msgspec
import numpy as np

from convo_cli.background import one_ahead
from convo_cli.config.schema import RunConfig
from convo_cli.cpus import num_cpus
from convo_cli.data.dialogue import Dialogue, chunks
from convo_cli.data.omissions import Omissions
from convo_cli.data.problems import LongTurn, Problem, ProblemSink
from convo_cli.data.unchanged import HashingFile
from convo_cli.errors import DataError
from convo_cli.events import Emit, Notice, Progress
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.preflight import find_untrained
from convo_cli.prepare.stored import EarlierStore, find_encoded
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.tokens.store import LEFT_OUT, NO_TARGET, USER_TARGET, Encoded, TokenStore
from convo_cli.wording import counted, quoted
from convo_cli.worker_processes import call_in_workers

_WORKERS_FROM_BYTES = 2**25
"""Size of data files from which worker processes encode them; each takes a second to start."""
_MAX_WORKERS = 6
"""One process reads and stores dialogues fast enough for about this many workers."""
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
    encoded: TokenStore | None = None,
    opened: list[HashingFile] | None = None,
) -> Generator[TokenStore, None, None]:
    """Encode every dialogue of a data set, or the first ``max_dialogues``, a chunk at a time.

    ``omissions``, one for each file, count what is not trained on (see `Inputs.read`). Problems
    that prevent training on a dialogue go to ``found``. Dialogues are taken from ``earlier`` stores
    if encoding them would give the same. The dialogues of ``encoded``, the beginning of the same
    store from an interrupted encoding, are neither encoded nor yielded; only their problems are
    found. Each data file is added to ``opened`` when its reading begins. ModelError if transformers
    renders the first dialogues differently from training, FileChangedError if a file changed since
    it was hashed.
    """
    config, emit = inputs.config, inputs.emit
    paths = [file.path for file in inputs.files_of(data_set)]

    def tasks(
        stream: Iterator[Dialogue],
    ) -> Iterator[Callable[[], list[tuple[Dialogue, Encoded | Problem]]]]:
        num_read = num_encoded
        for chunk in chunks(stream):
            known = [
                find_encoded(earlier, number, dialogue, encoder.max_length)
                for number, dialogue in enumerate(chunk, num_read)
            ]
            yield partial(_encode_rest, chunk, known, config, encoder)
            num_read += len(chunk)

    done, num_encoded = 0, 0 if encoded is None else len(encoded.dialogues)
    if not num_encoded:
        emit(Progress(stage, done, total, "dialogues"))
    with inputs.read(data_set, omissions=omissions, opened=opened) as dialogues:
        stream = _checked(islice(dialogues, max_dialogues), encoder, emit)
        for chunk in chunks(islice(stream, num_encoded)):
            assert encoded is not None, "num_encoded is 0 without it"
            part = encoded.part(done, done + len(chunk))
            left_out = np.flatnonzero(part.dialogues["num_tokens"] == 0).tolist()
            again = encode([chunk[number] for number in left_out], config, encoder)
            problems = dict(zip(left_out, again, strict=True))
            _report(chunk, problems, part, config, encoder, found)
            done += len(chunk)
            emit(Progress("reading what was encoded earlier", done, num_encoded, "dialogues"))
        if earlier or (num_workers := _num_workers(paths)) < 2:
            # Tokenizers release Python's lock: while a chunk is encoded, the next one is read and
            # the one before it stored.
            pairs = one_ahead(tasks(stream))
            parts = (to_store(one, config, encoder, found, paths) for one in pairs)
        else:
            packed = map(msgspec.msgpack.encode, chunks(stream))
            answers = call_in_workers(_ChunkEncoder(config, encoder, paths), packed, num_workers)
            parts = (_unpacked(*answer, found) for answer in answers)
        for part in parts:
            yield part
            done += len(part.dialogues)
            emit(Progress(stage, done, total, "dialogues"))
    if done == 0:
        raise DataError(
            "the data contains no dialogue to train on",
            hint='dialogues that say "train": false (or "weight": 0, "loss": false) are left out',
        )


def _num_workers(paths: Iterable[str]) -> int:
    """Return the number of worker processes; 0 if the files are too small to start any."""
    num_bytes = sum(Path(path).stat().st_size for path in paths)
    return min(num_cpus(), _MAX_WORKERS) if num_bytes >= _WORKERS_FROM_BYTES else 0


@dataclass(frozen=True, slots=True)
class _ChunkEncoder:
    """Callable that encodes packed dialogues; it returns their store and the problems found."""

    config: RunConfig
    encoder: DialogueEncoder
    paths: Sequence[str]

    def __call__(self, packed: bytes) -> tuple[TokenStore, list[Problem]]:
        dialogues = msgspec.msgpack.decode(packed, type=list[Dialogue])
        encoded = encode(dialogues, self.config, self.encoder)
        problems: list[Problem] = []
        pairs = list(zip(dialogues, encoded, strict=True))
        part = to_store(pairs, self.config, self.encoder, problems.append, self.paths)
        return part, problems


def _unpacked(part: TokenStore, problems: Iterable[Problem], found: ProblemSink) -> TokenStore:
    for problem in problems:
        found(problem)
    return part


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
    part = TokenStore.build(
        [(dialogue, one if isinstance(one, Encoded) else LEFT_OUT) for dialogue, one in encoded],
        paths,
    )
    results = dict(enumerate(one for _, one in encoded))
    _report([dialogue for dialogue, _ in encoded], results, part, config, encoder, found)
    return part


def _report(
    dialogues: Sequence[Dialogue],
    results: Mapping[int, Encoded | Problem],
    part: TokenStore,
    config: RunConfig,
    encoder: DialogueEncoder,
    found: ProblemSink,
) -> None:
    """Send problems to ``found`` in the order of the data, so that chunks do not change it.

    ``results`` are those of encoding, by index of the dialogue; ``part`` is the store of them.
    """
    problems = {number: one for number, one in results.items() if isinstance(one, Problem)}
    problems |= find_untrained(dialogues, part, config.dialogue.train_on, encoder.stop_ids)
    for number in sorted(problems):
        problem = problems[number]
        if not (isinstance(problem, LongTurn) and config.dialogue.long_turns == "drop"):
            found(problem)


def _checked(
    dialogues: Iterator[Dialogue], encoder: DialogueEncoder, emit: Emit
) -> Iterator[Dialogue]:
    """Yield the dialogues; require that transformers renders the first ones as training does.

    Warns if the ids of a text decode to another text.
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
