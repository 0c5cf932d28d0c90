"""Format legacy: the files, their tokenizer in plain transformers, and a receipt that can fail."""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from convo_cli.errors import CheckpointError, ModelError
from convo_cli.export import exporting
from convo_cli.export.exporting import export_checkpoint
from convo_cli.export.folders import legacy, legacy_tokenizer
from convo_cli.export.folders.legacy_tokenizer import reads_alike, write_tokenizer
from convo_cli.export.unsupported import require_supported
from convo_cli.storage.sealed import verify_directory
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.probes import PROBES
from convo_cli.text.tokenizers.trained import add_special_tokens
from tests.foreign import byte_pairs, fast, sentence_pieces

FILES = {
    "MANIFEST.json", "README.md", "added_tokens.json", "config.json", "generation_config.json",
    "pytorch_model.bin", "special_tokens_map.json", "spiece.model", "tokenizer_config.json",
    "receipt.json", "expected.json",
}  # fmt: skip
PROOF = ("receipt.json", "expected.json")
DOCUMENTED = {
    "config.json", "pytorch_model.bin", "special_tokens_map.json", "spiece.model",
    "tokenizer_config.json",
}  # fmt: skip
"""The files of convmodel's `export_model`, by its document."""


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("legacy") / "old"
    return export_checkpoint(checkpoint, out, "legacy", force=False, emit=lambda event: None)


def test_the_files_are_those_of_convmodel_and_what_old_transformers_needs_besides(
    exported, checkpoint
):
    assert {path.name for path in exported.out.iterdir()} == set(exported.files) == FILES
    assert set(exported.files) > DOCUMENTED
    verify_directory(exported.out)
    assert (exported.out / "spiece.model").read_bytes() == (
        checkpoint / "spiece.model"
    ).read_bytes()
    assert exported.receipt.prompts.num > 3
    assert exported.receipt.runtime.classes == ("GPT2LMHeadModel", "BertGenerationTokenizer")
    config = json.loads((exported.out / "config.json").read_bytes())
    assert config["activation_function"] == "gelu_new"  # the other name came with 4.28


def test_the_pickle_holds_tensors_and_nothing_else(exported, checkpoint):
    from safetensors.torch import load_file

    file = exported.out / "pytorch_model.bin"
    weights = torch.load(file, weights_only=True)
    stored = load_file(checkpoint / "model.safetensors")
    assert weights.keys() == stored.keys() | {"lm_head.weight"}
    assert all(torch.equal(weights[name], stored[name]) for name in stored)
    assert weights["lm_head.weight"].data_ptr() == weights["transformer.wte.weight"].data_ptr()
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        program = list(pickletools.genops(archive.read(name)))
    named = {argument for code, argument, _ in program if code.name == "GLOBAL"}
    assert named == {
        "torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict",
    }  # fmt: skip


def test_the_same_checkpoint_gives_the_same_pickle(exported, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "prove", lambda *_: exported.receipt)
    export_checkpoint(checkpoint, tmp_path / "old", "legacy", force=False, emit=lambda event: None)
    for name in FILES - {"MANIFEST.json", "README.md", *PROOF}:
        assert (tmp_path / "old" / name).read_bytes() == (exported.out / name).read_bytes(), name


@pytest.mark.parametrize("damage", ["weights", pytest.param("template", marks=pytest.mark.slow)])
def test_a_folder_that_replies_differently_is_not_published(
    checkpoint, tmp_path, monkeypatch, damage
):
    real = legacy_tokenizer.write_tokenizer

    def write(encoder, spiece, folder):
        written = real(encoder, spiece, folder)
        file = folder / "tokenizer_config.json"
        file.write_text(file.read_text().replace("| trim", ""))
        return written

    if damage == "weights":
        save = torch.save
        monkeypatch.setattr(
            torch, "save", lambda weights, file: save({n: w + 1 for n, w in weights.items()}, file)
        )
    else:
        monkeypatch.setattr(legacy_tokenizer, "write_tokenizer", write)
    with pytest.raises(CheckpointError, match="nothing was exported: "):
        export_checkpoint(
            checkpoint, tmp_path / "o", "legacy", force=False, emit=lambda event: None
        )
    assert list(tmp_path.iterdir()) == []


def _reads_only_ones(folder, base):
    return SimpleNamespace(
        name="transformers",
        version="5",
        stop_ids=[1],
        text_ids=lambda text: [1],
        close=lambda: None,
    )


def test_a_tokenizer_of_other_ids_than_its_sentencepiece_model_is_written_as_tokenizer_json(
    checkpoint, monkeypatch, tmp_path
):
    from transformers import AutoTokenizer

    monkeypatch.setattr(legacy_tokenizer.folder_tokenizer, "open_runtime", _reads_only_ones)
    events = list[Any]()
    result = export_checkpoint(
        checkpoint, tmp_path / "old", "legacy", force=False, emit=events.append
    )
    behind = {"spiece.model", "added_tokens.json"}
    assert set(result.files) == FILES - behind | {"tokenizer.json"}
    verify_directory(result.out)
    warnings = [event.message for event in events if getattr(event, "is_warning", False)]
    assert len(warnings) == 1, "the ids of the test texts are those of the checkpoint"
    assert "spiece.model alone gives other ids than the tokenizer" in warnings[0]
    read, own = (AutoTokenizer.from_pretrained(folder) for folder in (result.out, checkpoint))
    assert read(list(PROBES))["input_ids"] == own(list(PROBES))["input_ids"]


def test_a_sentencepiece_model_beside_the_tokenizer_of_gpt2_does_not_read_alike(
    spiece, make_encoder, tmp_path
):
    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    made = make_template("chatml", tokenizer)
    add_special_tokens(tokenizer, made.special_tokens)
    both = make_encoder("turns", 128), DialogueEncoder(tokenizer, made, max_length=128)
    for number, encoder in enumerate(both):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "gpt2"}')
        write_tokenizer(encoder, spiece, folder)
        assert reads_alike(folder, encoder) == (number == 0)
    write_tokenizer(encoder, None, folder)
    events = list[Any]()
    legacy._note_files(folder, "why", events.append)
    (notice,) = events
    assert notice.message == "export: vocab.json and merges.txt instead of spiece.model: why"
    assert not notice.is_warning


def test_native_code_does_not_read_the_sentencepiece_model(make_encoder, spiece, tmp_path):
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(spiece)
    model.normalizer_spec.precompiled_charsmap = b"\xff" * 100
    damaged = model.SerializeToString()
    with pytest.raises(RuntimeError):
        SentencePieceProcessor(model_proto=damaged)
    write_tokenizer(make_encoder("turns"), damaged, tmp_path)
    assert (tmp_path / "spiece.model").read_bytes() == damaged


def test_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(
        ModelError, match='--format legacy holds models of type gpt2, but this is "llama"'
    ):
        require_supported(tmp_path, "legacy")


def test_a_full_disk_is_an_error_of_the_disk(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.open", lambda *_: Full())
    with pytest.raises(OSError, match="No space left"):
        legacy._save_tensors({"a": torch.zeros(3)}, tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("backend", "files", "loaded"),
    [
        (byte_pairs, ("vocab.json", "merges.txt"), "GPT2Tokenizer"),
        (sentence_pieces, ("tokenizer.json",), "TokenizersBackend"),
    ],
)
@pytest.mark.parametrize("template", ["turns", "convmodel", "cls-sep", "chatml"])
def test_a_tokenizer_without_sentencepiece_reads_alike_in_plain_transformers(
    tmp_path, backend, files, loaded, template
):
    from transformers import AutoTokenizer

    end = "<|endoftext|>" if backend is byte_pairs else "</s>"
    tokenizer = fast(backend(), bos_token=end, eos_token=end, pad_token=end)
    made = make_template(template, tokenizer)
    add_special_tokens(tokenizer, made.special_tokens)
    encoder = DialogueEncoder(tokenizer, made, max_length=128)
    assert write_tokenizer(encoder, None, tmp_path) == files
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert type(read).__name__ == loaded
    assert len(read) == len(tokenizer)
    assert read.chat_template == made.chat_template
    texts = [*PROBES, *(f"{end}{text}{made.stop_tokens[0]}\n {text} " for text in PROBES)]
    assert (
        read(texts, add_special_tokens=False)["input_ids"]
        == tokenizer(texts, add_special_tokens=False)["input_ids"]
    )


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("convmodel", {"sep_token": "<sep>"}),
        ("cls-sep", {"cls_token": "[CLS]", "sep_token": "[SEP]"}),
    ],
)
def test_the_tokens_have_the_names_under_which_the_forerunners_look_them_up(
    make_encoder, spiece, tmp_path, template, named
):
    from transformers import AutoTokenizer

    encoder = make_encoder(template)
    write_tokenizer(encoder, spiece, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert len(read) == len(encoder.tokenizer)
    for name, token in named.items():
        assert getattr(read, name) == token
        assert getattr(read, f"{name}_id") == encoder.tokenizer.convert_tokens_to_ids(token)
    texts = [text for text in PROBES if "<unk>" not in text]
    assert (
        read(texts, add_special_tokens=False)["input_ids"]
        == encoder.tokenizer(texts, add_special_tokens=False)["input_ids"]
    )
