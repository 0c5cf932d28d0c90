"""A model folder is refused if a file is code, leads to another file, or has no end."""

from __future__ import annotations

import json
import os

import pytest

from convo_cli.errors import ModelError
from convo_cli.storage import foreign_files as module
from convo_cli.storage.foreign_files import remove_foreign_entries, require_harmless

INDEX = "model.safetensors.index.json"


def folder(tmp_path, **files):
    for name, content in {"config": {"model_type": "gpt2"}, **files}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def index(tmp_path, *names):
    (tmp_path / INDEX).write_text(
        json.dumps({"weight_map": {f"tensor {k}": name for k, name in enumerate(names)}})
    )
    return tmp_path


def test_an_ordinary_folder_is_harmless(tmp_path):
    folder(
        tmp_path,
        tokenizer={"model": {}},
        config={"attn_implementation": "sdpa", "layers": [{"a": "x/y"}]},
    )
    index(tmp_path, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "blob").write_bytes(b"{}")
    (tmp_path / "special_tokens_map.json").symlink_to("blob")  # as in the hub's cache
    require_harmless(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/x",
        "../other.safetensors",
        "/etc/x.safetensors",
        "sub/x.safetensors",
        "model.bin",
        "model.pt",
        "",
        7,
    ],
)
def test_an_index_names_safetensors_files_beside_it_and_nothing_else(tmp_path, name):
    index(folder(tmp_path), "model-00001-of-00002.safetensors", name)
    with pytest.raises(
        ModelError,
        match=r"model\.safetensors\.index\.json: lists .* but it is not a safetensors file",
    ):
        require_harmless(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "somebody/kernel"},
        {"_attn_implementation": "somebody/kernel"},
        {"experts_implementation": "somebody/kernel@main"},
        {"text_config": {"attn_implementation": "somebody/kernel:f"}},
        {"sub": [{"attn_implementation": {"text_implementation": "somebody/kernel"}}]},
        {"attn_implementation": {"": "somebody/kernel"}},
        {"experts_implementation": [["eager"], {"a": [{"": "somebody/kernel"}]}]},
        {"_attn_implementation_internal": "somebody/kernel"},
        {"attn_implementation": "paged|somebody/kernel"},
        {"rope_implementation": "somebody/kernel"},
    ],
)
def test_a_config_names_no_code_on_a_hub(tmp_path, config):
    with pytest.raises(
        ModelError, match=r'config\.json: \w+ is ".*somebody/kernel.*", which would be code'
    ):
        require_harmless(folder(tmp_path, config=config))


@pytest.mark.parametrize("name", ["flash_attention_2", "deepgemm", "sonicmoe"])
def test_an_implementation_that_transformers_may_take_from_a_hub_is_refused(tmp_path, name):
    """With the package `kernels`, transformers downloads code that it does not have."""
    for key in ("attn_implementation", "_experts_implementation"):
        with pytest.raises(ModelError, match=f'{key} is "{name}"'):
            require_harmless(folder(tmp_path, config={key: {"text_config": name}}))


REAL = {
    "config": {
        "_name_or_path": "/home/somebody/model", "conv_kernel": [10, 3],
        "attn_implementation": {"": "sdpa", "vision_config": None},
        "cache_implementation": "hybrid", "_attn_implementation_autoset": True,
        "auto_map": {"AutoConfig": "somebody/model--configuration.Config"},
        "id2label": {"0": "LABEL_0"},
    },
    "tokenizer_config": {
        "name_or_path": "/home/somebody/model", "tokenizer_file": "/cache/tokenizer.json",
        "special_tokens_map_file": "/cache/special_tokens_map.json", "vocab_file": None,
        "merges_file": "merges.txt", "sp_model_kwargs": {}, "init_inputs": [], "eos_token": "</s>",
        "extra_special_tokens": ["/", "[/INST]"], "added_tokens_decoder": {"0": {"content": "/"}},
        "chat_template": "{{ messages[0]['content'] }}/", "tokenizer_class": "LlamaTokenizer",
        "padding_side": "left", "model_max_length": 1e30,
    },
    "special_tokens_map": {
        "eos_token": {"content": "</s>"}, "additional_special_tokens": ["/etc/hostname"],
    },
}  # fmt: skip


def test_entries_of_real_models_are_harmless(tmp_path, monkeypatch):
    monkeypatch.chdir(folder(tmp_path, **REAL))
    (tmp_path / "merges.txt").write_text("")
    require_harmless(tmp_path)


def test_a_path_that_transformers_overwrites_may_lead_anywhere(tmp_path):
    """Older versions wrote the path of a file that they found, and it may still exist."""
    (tmp_path / "elsewhere.json").write_text("{}")
    model = tmp_path / "model"
    model.mkdir()
    paths = dict.fromkeys(
        ("tokenizer_file", "special_tokens_map_file", "name_or_path"),
        str(tmp_path / "elsewhere.json"),
    )
    require_harmless(folder(model, tokenizer_config=paths))


FILE_KEYS = [
    "vocab", "vocab_file", "merges", "merges_file", "spm_file", "source_spm", "emoji_file",
    "sudachi_config_path", "tokenizer_object", "anything",
]  # fmt: skip


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A file beside the model's folder, where convo runs."""
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".env"
    path.write_text("TOKEN=1")
    return path


@pytest.mark.parametrize("key", FILE_KEYS)
@pytest.mark.parametrize("file", ["tokenizer_config", "special_tokens_map", "config"])
def test_no_entry_names_a_file_outside_of_the_folder(tmp_path, secret, file, key):
    shapes = (str(secret), secret.name, "../.env", [str(secret)], {"model_file": str(secret)})
    for value in shapes:
        with pytest.raises(
            ModelError,
            match=rf"{file}\.json: \w+ is .*\.env.*, but an entry may not refer to a file",
        ):
            require_harmless(folder(tmp_path / "model", **{file: {"nested": [{key: value}]}}))


@pytest.mark.skipif(os.name != "posix", reason="devices")
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/proc/self/environ"])
def test_a_device_is_a_file_too(tmp_path, path):
    if os.path.exists(path):
        with pytest.raises(ModelError, match="an entry may not refer to a file"):
            require_harmless(folder(tmp_path, tokenizer_config={"vocab_file": path}))


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("config", {"configuration_files": ["config.4.0.0.json"]}),
        ("config", {"transformers_weights": "other.safetensors.index.json"}),
        ("config", {"transformers_weights": "adapter_model.bin"}),
        ("tokenizer_config", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}),
        ("tokenizer_config", {"init_inputs": ["a"]}),
        ("tokenizer_config", {"vocab": "not there yet"}),
        ("special_tokens_map", {"merges": "not there yet"}),
    ],
)
def test_no_entry_replaces_a_file_that_was_checked(tmp_path, file, entry):
    with pytest.raises(ModelError, match="but an entry may not refer to a file"):
        require_harmless(folder(tmp_path, **{file: entry}))


def test_special_tokens_map_names_no_tokenizer_of_another_folder(tmp_path, secret):
    with pytest.raises(ModelError, match="tokenizer_file is "):
        require_harmless(
            folder(tmp_path / "model", special_tokens_map={"tokenizer_file": str(secret)})
        )


@pytest.mark.parametrize("text", ["x" * 5000, "a\0b", "", "~", "http://a/b", "\ud800"])
def test_a_text_that_cannot_be_a_path_is_harmless(tmp_path, text):
    require_harmless(folder(tmp_path, tokenizer_config={"anything": text}))


@pytest.mark.parametrize("target", ["../secret", "/etc/hostname", "../../x/blobs/1"])
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path, target):
    (tmp_path / "secret").write_text("{}")
    model = tmp_path / "model"
    (model / "additional_chat_templates").mkdir(parents=True)
    for name in ("tokenizer.model", "notes", "additional_chat_templates/a.jinja"):
        link = model / name
        link.symlink_to(
            target if link.parent == model or target.startswith("/") else f"../{target}"
        )
        with pytest.raises(ModelError, match="a link to a file outside the folder"):
            require_harmless(model)
        link.unlink()
    require_harmless(model)


def test_the_links_of_the_hubs_cache_lead_to_its_own_blobs_only(tmp_path):
    blobs, snapshot = tmp_path / "models--a--b/blobs", tmp_path / "models--a--b/snapshots/0123"
    other = tmp_path / "models--c--d/blobs"
    for path in (blobs, snapshot, other):
        path.mkdir(parents=True)
    (blobs / "1").write_text('{"vocab_file": "vocab.json"}')
    (snapshot / "tokenizer_config.json").symlink_to("../../blobs/1")
    (snapshot / "vocab.json").symlink_to("../../blobs/1")
    require_harmless(snapshot)
    (other / "2").write_text("{}")
    (snapshot / "config.json").symlink_to("../../../models--c--d/blobs/2")
    with pytest.raises(ModelError, match=r"config\.json: a link to a file outside"):
        require_harmless(snapshot)


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ModelError, match="a: a link"):
        require_harmless(tmp_path)


def test_shards_of_a_distributed_checkpoint_are_refused(tmp_path):
    """transformers would read them instead of model.safetensors."""
    (folder(tmp_path) / "shard-00001-model-00001-of-00001.safetensors").touch()
    with pytest.raises(ModelError, match="a shard of a distributed checkpoint"):
        require_harmless(tmp_path)


def test_references_to_code_and_local_paths_are_removed_from_configs_at_any_depth(tmp_path):
    code = {
        "auto_map": {"AutoModel": "a.B"},
        "custom_pipelines": {},
        "custom_generate": "a/b",
        "_name_or_path": "/home/a",
    }
    values = {"a": 1, "sub": [{"b": "é"}]}
    folder(
        tmp_path,
        config={**values, **code, "sub": [{"b": "é", **code}]},
        tokenizer_config={"c": "</s>"},
    )
    untouched = (tmp_path / "tokenizer_config.json").read_bytes()
    remove_foreign_entries(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8")) == values
    assert (tmp_path / "tokenizer_config.json").read_bytes() == untouched


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer.model", "tokenizer.tiktoken", "merges.txt"]
)
def test_a_file_that_would_be_read_at_once_has_a_largest_size(tmp_path, monkeypatch, name):
    monkeypatch.setattr(module, "MAX_TEXT_BYTES", 1000)
    monkeypatch.setattr(module, "MAX_SPIECE_BYTES", 1000)
    folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(bytes(2000))
    (tmp_path / name).write_bytes(bytes(1000))
    require_harmless(tmp_path)
    (tmp_path / name).write_bytes(bytes(1001))
    with pytest.raises(ModelError, match=rf"{name}: 1,001 bytes"):
        require_harmless(tmp_path)


def test_an_index_of_weights_has_a_largest_size(tmp_path):
    with (folder(tmp_path) / INDEX).open("wb") as file:
        file.truncate(2**25 + 1)
    with pytest.raises(
        ModelError, match="33,554,433 bytes, but such a file may have at most 33,554,432"
    ):
        require_harmless(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(folder(tmp_path) / "tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json: not a regular file"):
        require_harmless(tmp_path)


def test_what_is_nested_without_end_is_refused_and_what_is_no_json_is_left_to_its_reader(tmp_path):
    (tmp_path / "config.json").write_text("{")
    (tmp_path / INDEX).write_text("[]")
    require_harmless(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"config\.json: nested too deeply"):
        require_harmless(tmp_path)
