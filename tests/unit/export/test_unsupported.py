"""An export is refused before any work, with what its format holds and what holds the model."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from convo_cli.errors import ModelError, UsageError
from convo_cli.export.export_places import require_outside
from convo_cli.export.format import About
from convo_cli.export.formats import FORMATS
from convo_cli.export.unsupported import require_options, require_supported, unusable_package
from convo_cli.runs.provenance import other_exports

ABOUT = About(
    summary="a format of tests",
    usage="",
    dtypes=("fp32", "fp16"),
    architectures=frozenset({"gpt2", "llama"}),
    tokenizers=frozenset({"byte-level bpe"}),
    objection=lambda config: "it has two heads" if config.get("n_head") == 2 else None,
    extra="tiny",
    writes_with=("json", "no_such_package"),
)
BYTE_LEVEL = {"model": {"type": "BPE", "merges": []}, "decoder": {"type": "ByteLevel"}}
INSTALL = 'pip install "convo-cli[tiny]"'
REPAIR = "pip install --upgrade --force-reinstall json no_such_package"
UNIGRAM = {"model": {"type": "Unigram"}}


def register(monkeypatch, name, about):
    monkeypatch.setitem(FORMATS, name, SimpleNamespace(about=lambda: about))


@pytest.fixture
def tiny(monkeypatch):
    register(monkeypatch, "tiny", ABOUT)


@pytest.fixture
def folder(tmp_path):
    def write(config=None, tokenizer=BYTE_LEVEL, adapter=False):
        (tmp_path / "config.json").write_text(json.dumps(config or {"model_type": "gpt2"}))
        (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
        for name in ("adapter_config.json", "base_model.json") if adapter else ():
            (tmp_path / name).write_text("{}")
        return tmp_path

    return write


@pytest.mark.parametrize("given", ["GGUF ", "ollama", "llama.cpp", "ggfu"])
def test_the_name_that_was_meant_is_suggested(given):
    with pytest.raises(UsageError, match="there is no such format") as caught:
        require_options(given.strip(), None)
    assert str(caught.value.hint).startswith("did you mean --format gguf? (one of huggingface, ")


def test_a_name_like_no_other_gets_the_list():
    with pytest.raises(UsageError) as caught:
        require_options("xyzzy\x1b[2J" * 50, None)
    assert str(caught.value.hint).startswith("give one of huggingface, ")
    assert len(caught.value.message) < 100
    assert "\x1b" not in caught.value.message


def test_the_first_type_of_weights_is_the_default():
    assert require_options("huggingface")[1] == "fp32"


@pytest.mark.parametrize(
    ("dtype", "hint"),
    [
        ("q8_0", "formats that write q8_0: eight"),
        ("float16", "did you mean --dtype fp16? (one of fp32, fp16)"),
        ("double", "give one of fp32, fp16"),
        ("", "give one of fp32, fp16"),  # an empty variable of a shell
    ],
)
def test_a_type_of_weights_that_the_format_lacks(monkeypatch, tiny, dtype, hint):
    for name in list(FORMATS):
        if name != "tiny":
            monkeypatch.delitem(FORMATS, name)
    register(monkeypatch, "eight", About(summary="", usage="", dtypes=("fp32", "q8_0")))
    with pytest.raises(UsageError, match="--format tiny writes fp32 or fp16") as caught:
        require_options("tiny", dtype)
    assert caught.value.hint == hint


def test_a_missing_extra_is_named_with_the_line_that_installs_it(tiny):
    with pytest.raises(UsageError) as caught:
        require_options("tiny")
    assert caught.value.message == (
        "--format tiny cannot be written: no_such_package is not installed"
    )
    assert caught.value.hint == 'pip install "convo-cli[tiny]"'
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("error", "says", "hint"),
    [
        (ImportError("cannot import name 'x'"), "cannot be used (cannot import name 'x')", REPAIR),
        (OSError("libgomp.so.1: cannot open"), "cannot be used (libgomp.so.1: cannot op", REPAIR),
        (ModuleNotFoundError("", name="part"), "part is not installed", INSTALL),
    ],
)
def test_a_package_that_is_broken_is_not_called_missing(error, says, hint):
    found = unusable_package("tiny", ABOUT, error)
    assert says in found.message
    assert found.hint == hint


@pytest.mark.parametrize("name", ["ctranslate2", "gguf"])
def test_a_window_narrower_than_the_dialogues_is_refused_unloaded(folder, name):
    words = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    tokenizer = {**BYTE_LEVEL, "pre_tokenizer": words}
    config = {"model_type": "mistral", "sliding_window": 127}
    place = folder(config, tokenizer)
    (place / "dialogue.json").write_text('{"max_length": 127}')
    require_supported(place, name)
    (place / "dialogue.json").write_text('{"max_length": 128}')
    with pytest.raises(ModelError, match="window of 127 tokens is shorter than its d") as caught:
        require_supported(place, name)
    assert "onnx" in str(caught.value.hint)
    assert "gguf" not in str(caught.value.hint)
    require_supported(folder({**config, "sliding_window": None}, tokenizer), name)
    qwen = {"model_type": "qwen2", "sliding_window": 8, "use_sliding_window": False}
    require_supported(folder(qwen, tokenizer), name)


def test_one_file_of_weights_is_not_split(monkeypatch):
    register(monkeypatch, "split", About(summary="", usage="", shards=True))
    require_options("split", max_shard_bytes=10**9)
    with pytest.raises(UsageError, match="--format legacy writes one file") as caught:
        require_options("legacy", max_shard_bytes=10**9)
    assert "split" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("config", "tokenizer", "says"),
    [
        ({"model_type": "mamba"}, BYTE_LEVEL, 'models of type gpt2 or llama, but this is "mamba"'),
        ({"model_type": ["x"]}, BYTE_LEVEL, "models of type gpt2 or llama, but this is \"['x']\""),
        ({}, BYTE_LEVEL, "models of type gpt2 or llama"),
        ({"model_type": "gpt2"}, UNIGRAM, "kind byte-level bpe, but this one is unigram"),
        ({"model_type": "gpt2"}, {"model": {"type": "Odd"}}, "a kind that convo does not know"),
        ({"model_type": "gpt2", "n_head": 2}, BYTE_LEVEL, "cannot hold this model: it has two h"),
    ],
)
def test_a_model_that_a_format_cannot_hold(tiny, folder, config, tokenizer, says):
    with pytest.raises(ModelError) as caught:
        require_supported(folder(config or {"other": 1}, tokenizer), "tiny")
    assert says in caught.value.message
    assert caught.value.message.startswith("--format tiny ")
    able = str(caught.value.hint).removeprefix("formats that can hold it: ").split(", ")
    assert "huggingface" in able
    assert not {"tiny", "adapter"} & set(able)
    assert ("legacy" in able) == (config.get("model_type") == "gpt2")


def test_a_model_that_it_can_hold(tiny, folder):
    require_supported(folder(), "tiny")
    require_supported(folder(adapter=True), "tiny")


def test_only_a_format_for_adapters_needs_one(folder):
    with pytest.raises(ModelError, match="but this is a whole model"):
        require_supported(folder(), "adapter")
    require_supported(folder(adapter=True), "adapter")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 10**5, b'{"model": 3}'])
def test_files_that_cannot_be_read_are_left_to_the_loading(tiny, tmp_path, content):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(content)
    if content != b'{"model": 3}':
        require_supported(tmp_path, "tiny")
    (tmp_path / "config.json").unlink()
    require_supported(tmp_path, "tiny")


def test_out_is_neither_the_source_nor_inside_it(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "link").symlink_to(run)
    for out in (run, tmp_path / "link", tmp_path / "x/../run"):
        with pytest.raises(UsageError, match="the source itself"):
            require_outside(out, run)
    for out in (run / "new", tmp_path / "link/a/b"):
        with pytest.raises(UsageError, match="which must stay unchanged"):
            require_outside(out, run)
    require_outside(tmp_path / "run-2", run)


def test_the_refusals_import_nothing_heavy():
    program = (
        "import sys, convo_cli.export.unsupported as r\n"
        "from convo_cli.export.formats import FORMATS\n"
        "for one in FORMATS.values(): one.about()\n"
        "print(*{'torch', 'transformers', 'tokenizers', 'sentencepiece', 'safetensors', 'gguf',"
        " 'onnx', 'ctranslate2', 'huggingface_hub', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert run.stdout.decode().split() == []


def test_an_export_for_another_program_is_named_as_what_it_is(tmp_path):
    receipt = tmp_path / other_exports.RECEIPT_FILE
    for harmless in (b"", b"[]", b"{}", b'{"export": 3}', b'{"export": "huggingface"}', b"\xff"):
        receipt.write_bytes(harmless)
        other_exports.require_no_other_export(tmp_path)
    receipt.write_bytes(b'{"export": "ctranslate2"}')
    with pytest.raises(ModelError, match="an export of --format ctranslate2, which") as caught:
        other_exports.require_no_other_export(tmp_path)
    assert "--verify" in str(caught.value.hint)
    receipt.write_text(json.dumps({"export": "\x1b[2J" + "x" * 10**5}))
    with pytest.raises(ModelError) as caught:
        other_exports.require_no_other_export(tmp_path)
    assert len(caught.value.message) < 300 + len(str(tmp_path))
    assert "\x1b" not in caught.value.message


def test_commands_open_the_exports_that_convo_can_chat_with_and_refuse_all_others():
    opened = {
        name
        for name, form in FORMATS.items()
        if any(command.startswith("convo chat") for command in form.about().commands)
    }
    assert opened == other_exports._OPENED
    assert {"legacy"} == other_exports._PICKLED


def test_each_format_has_names_of_its_own_and_of_its_weights():
    about = {name: form.about() for name, form in FORMATS.items()}
    others = [other for one in about.values() for other in one.other_names]
    assert len({*others, *FORMATS}) == len(others) + len(FORMATS)
    assert len({one.weights for one in about.values()} - {""}) == len(FORMATS)
