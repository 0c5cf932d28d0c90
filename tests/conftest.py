"""Fixtures that several folders share: the sample data, a small tokenizer, a tiny run."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from tests.cases import has_room_in_memory
from tests.direct_runtimes import DirectRuntime

if TYPE_CHECKING:
    from convo_cli.config.schema import RunConfig

os.environ["HF_HUB_OFFLINE"] = "1"
# Else every process of a test compiles the modules of convo again, which costs 0.4 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent
SAMPLE_DATA = ROOT / "sample_data"
CORPORA = ROOT.parent / "shared" / "data"
MEMORY = Path("/dev/shm")

if has_room_in_memory(MEMORY):
    # A run flushes each of its files, and a disk takes milliseconds for each flush.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# `make test-slow` repeats the property tests with the thorough profile. No example has a deadline,
# because a busy machine may take any time for it.
hypothesis.settings.register_profile("quick", max_examples=25, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=100, deadline=None)
hypothesis.settings.load_profile("quick")


def pytest_configure() -> None:
    # A shell starts a background job with SIGINT ignored, and every process of a test would inherit
    # that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    pytest.register_assert_rewrite("tests.docs.effects")  # a failing check then shows both values
    # SentencePiece's SWIG classes have no __module__ (sentencepiece 0.2.3, Python 3.11); importing
    # it warns once.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sentencepiece  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def runtimes_in_this_process() -> Iterator[None]:
    """Open exports without another process, which would import PyTorch again.

    `tests/unit/export/bounded/test_bounded_runtime.py` and every command in a process of its own
    start the real one.
    """
    from convo_cli.export.bounded import bounded_runtime

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_runtime, "BoundedRuntime", DirectRuntime)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files are started in this order, and the processes end together only if the last ones are
    # short.
    items.sort(key=lambda item: "tests/unit/training/" not in item.nodeid)


def corpus(name: str) -> Path:
    """Return a folder of real dialogues beside the checkout; skip the test if it is absent."""
    folder = CORPORA / name
    if not folder.is_dir():
        pytest.skip(f"the corpus {name} is not at ../shared/data/{name}")
    return folder


@pytest.fixture
def never_waits() -> Iterator[None]:
    """Fail a test that waits, as opening a pipe does for its other end."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def sample_dialogues() -> list[Any]:
    from convo_cli.config.schema import DataConfig
    from convo_cli.data.reader import read_dialogues

    path = str(SAMPLE_DATA / "train.jsonl")
    return list(read_dialogues([path], DataConfig(train=(path,))))


@pytest.fixture(scope="session")
def spiece(sample_dialogues: list[Any]) -> bytes:
    """A SentencePiece model of 900 pieces, trained on the sample data."""
    from convo_cli.config.schema import TokenizerConfig
    from convo_cli.text.tokenizers.trained import train_sentencepiece

    texts = [turn.text for dialogue in sample_dialogues for turn in dialogue.turns]
    return train_sentencepiece(texts, TokenizerConfig(vocab_size=900))


@pytest.fixture(scope="session")
def make_encoder(spiece: bytes) -> Callable[..., Any]:
    """A maker of encoders over that SentencePiece model, by template name."""
    from convo_cli.config.schema import TemplateName
    from convo_cli.text.encoder import DialogueEncoder
    from convo_cli.text.templates.template import make_template
    from convo_cli.text.tokenizers.trained import add_special_tokens, from_sentencepiece

    def make(name: TemplateName = "turns", max_length: int = 128) -> DialogueEncoder:
        tokenizer = from_sentencepiece(spiece)
        template = make_template(name, tokenizer)
        add_special_tokens(tokenizer, template.special_tokens)
        tokenizer.eos_token = tokenizer.pad_token = template.stop_tokens[-1]
        return DialogueEncoder(tokenizer, template, max_length=max_length)

    return make


def tiny_run(folder: Path, **changes: Any) -> RunConfig:
    """Return the config of a tiny run; keyword arguments change single keys of a section."""
    from convo_cli.config.schema import RunConfig

    values: dict[str, Any] = {
        "name": "tiny",
        "output_dir": str(folder / "runs"),
        "data": {
            "train": str(SAMPLE_DATA / "valid.jsonl"),
            "validation": str(SAMPLE_DATA / "test.jsonl"),
        },
        "tokenizer": {"vocab_size": 700},
        "model": {"scratch": {"layers": 2, "width": 32, "heads": 2, "context": 128}},
        "dialogue": {"max_length": 128},
        "training": {"max_steps": 6, "batch_size": 4, "warmup_steps": 2, "learning_rate": 1e-3},
        "evaluation": {"every_steps": 3, "reply_dialogues": 2},
        "generation": {"max_new_tokens": 8},
        "logging": {"tensorboard": False, "plots": False},
    }
    for section, value in changes.items():
        values[section] = {**values.get(section, {}), **value} if isinstance(value, dict) else value
    return RunConfig.model_validate(values)


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Any]:
    """`tiny_run`."""
    return tiny_run


@pytest.fixture
def tiny_config(make_config: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """The same maker, for the test's own folder."""
    return partial(make_config, tmp_path)


@pytest.fixture
def ignore() -> Callable[[Any], None]:
    """A reporter that ignores every event."""
    return lambda event: None
