"""Damage of every kind in each format prevents the receipt, and --verify reports it."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from convo_cli.errors import ChangedError, CheckpointError
from convo_cli.export import exporting
from convo_cli.export.exporting import _read, export_checkpoint
from convo_cli.export.formats import FORMATS
from convo_cli.export.proof import proving
from convo_cli.export.verifying import verify_folder
from tests.sealed import seal_again

_FILES = {"gguf": "model-F32.gguf", "ctranslate2": "model.bin", "onnx": "model.onnx.data"}
_POSITIONS = "transformer.wpe.weight"


@pytest.fixture(scope="module")
def source(checkpoint):
    return _read(checkpoint, checkpoint, lambda event: None, None, None)


@pytest.fixture(scope="module", params=[
    "gguf", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ctranslate2", "onnx")),
])  # fmt: skip
def exported(request, checkpoint, tmp_path_factory):
    """An export of each format, and its name."""
    about = FORMATS[request.param].about()
    for package in (*about.writes_with, *about.runs_with):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with pytest.MonkeyPatch.context() as patch:
        known = list[Any]()
        real = proving.ask_checkpoint

        def once(*given, **options):
            """Return the evidence, which is always the same for one checkpoint."""
            if not known:
                known.append(real(*given, **options))
            return known[0]

        patch.setattr(proving, "ask_checkpoint", once)
        patch.setattr(exporting, "write_card", lambda *_: None)
        out = tmp_path_factory.mktemp(request.param) / "out"
        export_checkpoint(checkpoint, out, request.param, force=False, emit=lambda event: None)
        yield request.param, out


@pytest.fixture
def copy(exported, tmp_path):
    shutil.copytree(exported[1], tmp_path / "copy")
    return tmp_path / "copy"


def _replace(file, old, new):
    content = file.read_bytes()
    assert len(old) == len(new)
    assert old in content, file
    file.write_bytes(content.replace(old, new))


def _change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def _weights(folder, name, checkpoint):
    """Write other position embeddings, which are stored alike in all formats."""
    values = load_file(checkpoint / "model.safetensors")[_POSITIONS]
    other = np.random.default_rng(0).normal(0, 3, values.shape).astype(np.float32)
    _replace(folder / _FILES[name], values.tobytes(), other.tobytes())


def _vocabulary(folder, name, checkpoint):
    """Exchange two pieces."""
    if name == "gguf":
        from gguf import GGUFReader

        field: Any = GGUFReader(folder / _FILES[name], "r+").fields["tokenizer.ggml.tokens"]
        texts: Any = {bytes(field.parts[place]): field.parts[place] for place in field.data}
        one, other = texts[b" the"], texts[b" you"]
        one[:], other[:] = bytearray(b" you"), bytearray(b" the")
        return
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    vocabulary = values["model"]["vocab"]
    names = [one[0] for one in vocabulary]
    one, other = names.index("▁the"), names.index("▁you")
    vocabulary[one][0], vocabulary[other][0] = vocabulary[other][0], vocabulary[one][0]
    path.write_text(json.dumps(values))


def _template(folder, name, checkpoint):
    if name == "gguf":
        from gguf import GGUFReader

        field: Any = GGUFReader(folder / _FILES[name], "r+").fields["tokenizer.chat_template"]
        text = bytes(field.parts[-1])
        field.parts[-1][:] = bytearray(text.replace(b"|end|", b"|END|"))
        return
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("<|end|>", "<|user|>"))


def _stop_token(folder, name, checkpoint):
    if name == "gguf":
        from gguf import GGUFReader

        fields: Any = GGUFReader(folder / _FILES[name], "r+").fields
        tokens = fields["tokenizer.ggml.tokens"]
        the = next(n for n, at in enumerate(tokens.data) if bytes(tokens.parts[at]) == b" the")
        for key in ("eos", "eot"):
            fields[f"tokenizer.ggml.{key}_token_id"].parts[-1][0] = the
        return
    _change(folder / "generation_config.json", eos_token_id=5)


def _context(folder, name, checkpoint):
    if name == "gguf":
        from gguf import GGUFReader

        fields: Any = GGUFReader(folder / _FILES[name], "r+").fields
        fields["gpt2.context_length"].parts[-1][0] = 16
    else:
        _change(folder / "dialogue.json", max_length=16)


def _length_of_dialogues(folder, name, checkpoint):
    _change(folder / "dialogue.json", max_length=1024)


def _half_a_file(folder, name, checkpoint):
    with (folder / _FILES[name]).open("r+b") as file:
        file.truncate(file.seek(0, 2) // 2)


DAMAGES = [
    _weights, _vocabulary, _template, _stop_token, _context, _length_of_dialogues, _half_a_file,
]  # fmt: skip
QUICK = (_vocabulary, _context)


@pytest.mark.parametrize(
    "damage",
    [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in DAMAGES],
    ids=lambda one: one.__name__[1:],
)
def test_a_damage_prevents_the_receipt_and_is_reported(exported, copy, source, checkpoint, damage):
    name = exported[0]
    damage(copy, name, checkpoint)
    for file in ("receipt.json", "MANIFEST.json"):
        shutil.copy(copy / file, copy.parent)
        (copy / file).unlink()
    with pytest.raises(CheckpointError, match=r"nothing was exported: |cannot be opened"):
        proving.prove(name, copy, source, "fp32", lambda event: None)
    assert not (copy / "receipt.json").exists()
    for file in ("receipt.json", "MANIFEST.json"):
        shutil.copy(copy.parent / file, copy)
    with pytest.raises(CheckpointError, match="not the export as it was written"):
        verify_folder(copy, lambda event: None)
    seal_again(copy)
    with pytest.raises((CheckpointError, ChangedError)):
        verify_folder(copy, lambda event: None)


@pytest.mark.slow
def test_a_flipped_bit_of_any_file_is_reported(exported, copy):
    for file in sorted(Path(copy).iterdir()):
        content = file.read_bytes()
        place = len(content) // 2
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=r"what was saved|MANIFEST\.json"):
            verify_folder(copy, lambda event: None)
        file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp16", "q8_0"])
def test_rounded_weights_have_to_read_texts_alike_too(source, tmp_path, dtype):
    pytest.importorskip("xllamacpp")
    pytest.importorskip("gguf")
    FORMATS["gguf"].write(source, tmp_path, dtype, lambda event: None)
    next(tmp_path.glob("*.gguf")).rename(tmp_path / _FILES["gguf"])
    _vocabulary(tmp_path, "gguf", None)
    with pytest.raises(CheckpointError, match=r"nothing was exported: .*differs at token"):
        proving.prove("gguf", tmp_path, source, dtype, lambda event: None)
