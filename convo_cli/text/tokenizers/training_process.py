"""Process that trains a SentencePiece model.

SentencePiece holds Python's lock while it trains, so a process that calls it cannot react to
signals until it is done.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

from convo_cli.errors import OutOfMemoryError

# The child gets the import path of this process, so that it imports the same convo, and nothing
# from the working folder.
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from convo_cli.text.tokenizers.training_process import main; main()"
)
_MODEL, _ERROR = b"model\n", b"error\n"


class TrainingError(Exception):
    """SentencePiece refuses to train; the text is its own message."""


def train_in_process(lines: Iterable[str], settings: Mapping[str, object]) -> bytes:
    """Train a model on lines without newlines, and return it; an exception ends the process."""
    command = [sys.executable, "-W", "ignore", "-c", _START, *sys.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None, "it was opened as a pipe"
        assert process.stdout is not None, "it was opened as a pipe"
        try:
            with suppress(BrokenPipeError), process.stdin as stdin:  # its exit code says why
                stdin.write(json.dumps(settings).encode() + b"\n")
                for line in lines:
                    stdin.write(line.encode() + b"\n")
            answer = process.stdout.read()
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    if answer.startswith(_ERROR):
        raise TrainingError(answer.removeprefix(_ERROR).decode())
    if answer.startswith(_MODEL) and code == 0:
        return answer.removeprefix(_MODEL)
    if code in (-getattr(signal, "SIGKILL", 0), -getattr(signal, "SIGABRT", 0)):
        raise OutOfMemoryError(
            "the system killed the process that trains the tokenizer, because memory ran out",
            hint="lower tokenizer.vocab_size, or train the tokenizer on fewer dialogues",
        )
    raise RuntimeError(f"the process that trains the tokenizer ended with exit code {code}")


def main() -> None:
    """Read settings and lines from stdin; write the model or SentencePiece's error to stdout."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches this process too
    _end_with_parent()
    if not (first := sys.stdin.buffer.readline()):  # the parent was stopped before it wrote
        return
    import sentencepiece

    settings = json.loads(first)
    lines = (line[:-1].decode() for line in sys.stdin.buffer)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=model, **settings
        )
    except RuntimeError as error:
        sys.stdout.buffer.write(_ERROR + str(error).encode())
    else:
        sys.stdout.buffer.write(_MODEL + model.getvalue())


def _end_with_parent() -> None:
    """Let Linux kill this process when its parent ends, which it cannot notice while it trains."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
