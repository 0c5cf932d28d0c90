"""The sample of a run's data: what is read, and what is said of data that changed."""

from __future__ import annotations

import gzip
import hashlib
import json
from types import SimpleNamespace
from typing import Any

import pytest

from convo_cli.config.schema import DataConfig
from convo_cli.export.proof import run_data
from convo_cli.export.proof.run_data import MAX_TEXTS, read_run_data
from convo_cli.runs.provenance.data_files import DataFile


@pytest.fixture
def read(monkeypatch):
    """Return a reader of the data of a run that was trained on these files."""

    def ask(files, **settings):
        data = DataConfig(train=tuple(str(file) for file in files), **settings)
        monkeypatch.setattr(run_data, "read_config", lambda _: SimpleNamespace(data=data))
        hashed = [
            DataFile.model_construct(
                path=str(file),
                sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
                num_lines=1,
            )
            for file in files
        ]
        info = SimpleNamespace(train=hashed, validation=[])
        source: Any = SimpleNamespace(loaded=SimpleNamespace(info=info), run=object())
        return lambda: read_run_data(source)

    return ask


def written(file, num, start=0):
    lines = (
        json.dumps({"messages": [
            {"role": "user", "content": f"question {k}"},
            {"role": "assistant", "content": f"answer {k}"},
        ]})
        for k in range(start, start + num)
    )  # fmt: skip
    content = "\n".join(lines).encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


def test_texts_of_every_file_are_in_the_sample(read, tmp_path):
    files = [written(tmp_path / "a.jsonl.gz", 2000), written(tmp_path / "b.jsonl", 9, 2000)]
    found = read(files)()
    assert len(found.training_texts) <= MAX_TEXTS
    assert {f"answer {k}" for k in range(2000, 2009)} < set(found.training_texts)
    assert found.absent == {"perplexity": "the run has no validation data"}


def test_dialogues_held_back_are_the_validation_data(read, tmp_path):
    found = read([written(tmp_path / "a.jsonl", 200)], validation_split=0.2)()
    assert 10 < len(found.validation) < 80
    assert found.absent == {}


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_changed_data_is_not_used_and_no_validation_data_is_denied(read, tmp_path, change):
    file = written(tmp_path / "a.jsonl", 200)
    again = read([file], validation_split=0.2)
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes() + b"\n")
    found = again()
    assert (found.training_texts, found.dialogues, found.validation) == ([], [], [])
    for part in ("training_texts", "perplexity"):
        assert "training data" in found.absent[part]
        assert "was moved, deleted or changed" in found.absent[part]
