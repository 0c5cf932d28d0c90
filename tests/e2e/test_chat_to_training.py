"""From a chat to training data: correct ten replies, train on the session, ask again."""

from __future__ import annotations

import json

import pytest

from convo_cli.chat.saved_sessions import SessionFile, reopen
from convo_cli.chat.session import ChatSession
from convo_cli.config.schema import GenerationSettings
from convo_cli.model.open import open_generator
from tests.commands import TINY, Result, make_workplace, run_here

SETTINGS = GenerationSettings(temperature=0, max_new_tokens=30)
CORRECTIONS = {
    "Hello!": "Good morning, and welcome to the lighthouse.",
    "What is your name?": "My name is Ada, and I keep the light.",
    "Where do you live?": "I live on a small island in the north.",
    "What do you like to eat?": "I like fresh bread with salt and butter.",
    "Do you like music?": "Yes, I play the old piano every evening.",
    "What time is it?": "It is time to light the lamp.",
    "Can you help me?": "Of course. Tell me what the sea has done.",
    "I am sad today.": "Sit by the window and count the waves with me.",
    "Tell me a joke.": "A fish swam into a wall and said: dam!",
    "Goodbye!": "Safe travels, and mind the rocks.",
}


def ignore(text):
    pass


def ask_all(model):
    """Open a model and ask it everything in one conversation."""
    generator = open_generator(str(model), device="cpu", emit=ignore)
    session = ChatSession(generator, SETTINGS)
    for message in CORRECTIONS:
        session.say(message, ignore)
    return session


def num_correct(session):
    pairs = zip(session.exchanges, CORRECTIONS.values(), strict=True)
    return sum(one.chosen_reply.text == correct for one, correct in pairs)


@pytest.mark.slow
def test_a_model_that_was_trained_on_a_corrected_session_gives_the_corrected_replies(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_workplace(tmp_path)
    config = TINY.replace("context: 128", "context: 512").replace("width: 32", "width: 64")
    config = config.replace("max_length: 128", "max_length: 512")
    (tmp_path / "config.yaml").write_text(config, encoding="utf-8")
    assert run_here(tmp_path, "train", "config.yaml", "-q").code == 0
    assert run_here(tmp_path, "export", "runs/tiny", "exports/tiny", "-q").code == 0

    session = ask_all(tmp_path / "exports/tiny")
    assert num_correct(session) == 0
    file = SessionFile.new(session.contract)
    for number, text in enumerate(CORRECTIONS.values(), 1):
        session.edit(number, text)
        assert file.save(session) is None
    file.close()
    path = file.path
    assert path is not None

    checked = run_here(tmp_path, "validate-data", path, "--json")
    numbers = [checked.json[key] for key in ("num_errors", "num_warnings")]
    assert (checked.code, numbers) == (0, [0, 0])
    (tmp_path / "corrections.yaml").write_text(
        f"name: corrections\noutput_dir: runs\ndata: {{train: {json.dumps(str(path))}}}\n"
        "model: {pretrained: exports/tiny}\n"
        "dialogue: {template: turns, max_length: 512}\n"
        "training: {max_steps: 200, batch_size: 1, warmup_steps: 5, learning_rate: 3e-3}\n"
        "checkpoints: {every_steps: 200}\n"
        "logging: {tensorboard: false, plots: false}\n",
        encoding="utf-8",
    )
    trained = run_here(tmp_path, "train", "corrections.yaml", "-q")
    assert trained == Result(0, "runs/corrections\n", "")

    corrected = ask_all(tmp_path / "runs/corrections")
    assert num_correct(corrected) == len(CORRECTIONS)
    again, file, note = reopen(path, corrected.generator)
    file.close()
    assert again.turns == session.turns
    assert note == "the session was saved with another model: tiny"
