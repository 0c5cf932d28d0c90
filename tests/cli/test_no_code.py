"""No file can run code: pickles, custom classes and hostile chat templates are refused or ignored
in every command.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import pytest

import convo_cli
from tests.cases import quick_first
from tests.commands import settings

SOURCE = Path(convo_cli.__file__).parent
EXPORT = "exports/tiny"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture
def trace(work):
    """A file that must not be created."""
    return work / "ran"


@pytest.fixture
def model(work):
    """A Hugging Face folder by an unknown author."""
    folder = work / "model"
    shutil.copytree(work / EXPORT, folder)
    for name in ("MANIFEST.json", "dialogue.json"):
        (folder / name).unlink()
    return folder


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_the_bomb_would_go_off(trace):
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists()


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.ckpt", "model.safetensors"]
)
@pytest.mark.parametrize("has_torch_form", quick_first([True, False]))
def test_a_pickle_is_never_opened_as_weights(convo, model, trace, name, has_torch_form):
    (model / "model.safetensors").unlink()
    if has_torch_form:
        import torch

        torch.save(Bomb(trace), model / name)
    else:
        (model / name).write_bytes(pickle.dumps(Bomb(trace)))
    result = convo("chat", "model", stdin=b"hi\n")
    assert (result.code, result.out) == (2, "")
    assert "hint: " in result.err
    assert not trace.exists()


def test_an_index_of_safetensors_brings_no_pickle_in(convo, model, trace):
    (model / "model.safetensors").unlink()
    (model / "weights.bin").write_bytes(pickle.dumps(Bomb(trace)))
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": "weights.bin"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    result = convo("chat", "model", stdin=b"hi\n")
    assert (result.code, result.out) == (2, "")
    assert 'lists "weights.bin" as a weight file' in result.err
    assert not trace.exists()


@pytest.mark.parametrize(
    "command", [["chat", "model"], ["evaluate", "model", "valid.jsonl", "--replies", 0], "train"]
)
@pytest.mark.parametrize("is_known", quick_first([True, False]))
def test_classes_that_a_folder_brings_along_are_not_imported(
    convo, model, trace, command, is_known
):
    (model / "evil.py").write_text(f"open({str(trace)!r}, 'w')\nclass Evil: pass\n")
    for name in (
        "__init__.py",
        "modeling_gpt2.py",
        "configuration_gpt2.py",
        "tokenization_gpt2.py",
    ):
        shutil.copyfile(model / "evil.py", model / name)
    mapped = dict.fromkeys(["AutoConfig", "AutoModel", "AutoModelForCausalLM"], "evil.Evil")
    change(model / "config.json", auto_map=mapped, **({} if is_known else {"model_type": "evil"}))
    change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    change(model / "generation_config.json", custom_generate="model")
    (model / "custom_generate").mkdir()
    shutil.copyfile(model / "evil.py", model / "custom_generate/generate.py")
    if command == "train":
        pairs = ("name=new", "model.scratch=null", "model.pretrained=model", "training.max_steps=2")
        command = ["train", "config.yaml", *settings(*pairs)]
    result = convo(*command, "-q", stdin=b"hi\n")
    assert result.code == (0 if is_known else 2), result
    assert not trace.exists()
    assert not any("evil" in name for name in sys.modules)


def test_a_run_from_such_a_folder_holds_nothing_that_names_code(convo, work, model):
    """Other programs would import it."""
    code = {
        "auto_map": {"AutoModelForCausalLM": "evil.Evil"},
        "custom_pipelines": {"a": {"impl": "evil.Evil"}},
    }
    change(model / "config.json", **code, custom_generate="evil", nested={"a": [code]})
    change(
        model / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["evil.Evil", None]},
        name_or_path="/home/a",
    )
    pairs = ("name=new", "model.scratch=null", "model.pretrained=model", "training.max_steps=2")
    assert convo("train", "config.yaml", "-q", *settings(*pairs)).code == 0
    assert convo("export", "runs/new", "out", "-q").code == 0
    for folder in (
        "runs/new/checkpoints/step-00000000",
        "runs/new/checkpoints/step-00000002",
        "out",
    ):
        for file in (work / folder).glob("*.json"):
            content = file.read_text(encoding="utf-8")
            assert not re.search("evil|auto_map|custom_|/home/a", content), file


def test_an_export_of_a_folder_with_code_holds_none(convo, work, model, trace):
    shutil.copyfile(work / EXPORT / "dialogue.json", model / "dialogue.json")
    extra = {
        "modeling_evil.py": b"1", "pytorch_model.bin": pickle.dumps(Bomb(trace)),
        ".env": b"TOKEN=1", "a.txt": b"1", "model-00001-of-00002.safetensors": b"1",
        "vocab.json": b"{}", ".gitattributes": b"1", "b\x1b[2J.so": b"1",
    }  # fmt: skip
    for name, content in extra.items():
        (model / name).write_bytes(content)
    (model / "sub").mkdir()
    change(model / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    change(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    change(model / "generation_config.json", num_beams=4, custom_generate="evil")
    before = {path.name for path in (work / EXPORT).iterdir()}
    result = convo("export", "model", "out")
    assert result.code == 0, result
    assert {path.name for path in (work / "out").iterdir()} == before
    assert "these files are not exported: .env, .gitattributes, a.txt, b\\x1b[2J.so, " in result.err
    assert " and 4 more" in result.err
    assert not [
        path
        for path in (work / "out").glob("*.json")
        if re.search("auto_map|evil|num_beams", path.read_text())
    ]
    assert not trace.exists()


@pytest.mark.parametrize("command", quick_first(["chat", "train"]))
@pytest.mark.parametrize(
    "entry",
    [
        {"": "somebody/kernel"},
        {"text_config": {"": "somebody/kernel"}},
        "somebody/kernel@main:f",
        "flash_attention_3",
    ],
)
def test_no_entry_loads_a_kernel_from_a_hub(convo, model, command, entry):
    change(model / "config.json", attn_implementation=entry)
    pairs = ("name=new", "model.scratch=null", "model.pretrained=model")
    result = convo(
        *(["chat", "model"] if command == "chat" else ["train", "config.yaml", *settings(*pairs)])
    )
    assert (result.code, result.out) == (2, "")
    assert "which would be code from a hub" in result.err


def test_an_adapter_does_not_load_another_model(convo, model):
    """transformers follows its base_model_name_or_path if the package peft is installed."""
    (model / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "somebody/model", "peft_type": "LORA"}'
    )
    result = convo("chat", "model")
    message = "model: an adapter of somebody/model, but convo needs a whole model"
    assert result.err.startswith(f"error: {message} (adapter_config.json)\nhint: ")
    assert result.code == 2


def test_config_json_puts_no_other_file_in_the_place_of_the_weights(convo, model, trace):
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(trace)))
    (model / "other.safetensors.index.json").write_text(
        '{"metadata": {}, "weight_map": {"a": "adapter_model.bin"}}'
    )
    for name in ("adapter_model.bin", "other.safetensors.index.json"):
        change(model / "config.json", transformers_weights=name)
        result = convo("chat", "model", stdin=b"hi\n")
        assert (result.code, result.out) == (2, "")
        assert (
            f'transformers_weights is "{name}", but an entry may not refer to a file' in result.err
        )
    assert not trace.exists()


BERT = {"tokenizer_class": "BertTokenizer"}


@pytest.mark.parametrize("has_tokenizer", [True, False])
@pytest.mark.parametrize(
    ("file", "entries"),
    [
        ("tokenizer_config.json", {"vocab": "SECRET", **BERT}),
        ("tokenizer_config.json", {"vocab_file": "SECRET"}),
        ("tokenizer_config.json", {"init_inputs": ["SECRET"], **BERT}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../tokenizer.4.0.0.json"]}),
        ("special_tokens_map.json", {"tokenizer_file": "TOKENIZER"}),
        ("special_tokens_map.json", {"vocab": "SECRET"}),
    ],
)
def test_no_file_outside_of_the_folder_comes_into_a_tokenizer(
    convo, work, model, file, entries, has_tokenizer
):
    words = [f"secret{index}" for index in range(300)]
    (work / "secret.txt").write_text(
        "\n".join(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", *words])
    )
    spec = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    spec["added_tokens"].append({**spec["added_tokens"][-1], "content": "secret0", "id": 5000})
    (work / "tokenizer.4.0.0.json").write_text(json.dumps(spec))
    text = json.dumps(entries).replace("SECRET", str(work / "secret.txt"))
    (model / file).touch()
    old = json.loads((model / file).read_text() or "{}")
    (model / file).write_text(
        json.dumps(
            {**old, **json.loads(text.replace("TOKENIZER", str(work / "tokenizer.4.0.0.json")))}
        )
    )
    if not has_tokenizer:
        (model / "tokenizer.json").unlink()
    pairs = ("name=new", "model.scratch=null", "model.pretrained=model", "training.max_steps=1")
    result = convo("train", "config.yaml", *settings(*pairs))
    assert (result.code, result.out) == (2, "")
    assert "but an entry may not refer to a file" in result.err
    assert not (work / "runs/new").exists()


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer.model", "model.safetensors", "dialogue.json", "notes"]
)
@pytest.mark.parametrize("command", quick_first([["chat", "model"], ["export", "model", "out"]]))
def test_a_link_out_of_the_folder_is_not_followed(convo, work, model, name, command):
    shutil.copyfile(work / EXPORT / "dialogue.json", model / "dialogue.json")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(work / EXPORT / "README.md")
    result = convo(*command, stdin=b"hi\n")
    assert (result.code, result.out) == (2, "")
    assert f"error: model/{name}: a link to a file outside the folder\nhint: " in result.err
    assert not (work / "out").exists()


@pytest.mark.parametrize(
    "command", [["chat", "model"], ["evaluate", "model", "valid.jsonl"], "train"]
)
def test_a_chat_template_without_end_is_ended_in_every_command(convo, work, model, command):
    (model / "chat_template.jinja").write_text(ENDLESS)
    if command == "train":
        pairs = (
            "name=new",
            "model.scratch=null",
            "model.pretrained=model",
            "dialogue.template=native",
        )
        command = ["train", "config.yaml", *settings(*pairs)]
    result = convo(*command, stdin=b"hi\n")
    assert (result.code, result.out) == (2, "")
    assert re.search(
        r"error: .*: its chat template takes more than 2 s of CPU time for one dialogue\nhint",
        result.err,
    )
    assert not (work / "out").exists()


def test_a_config_nested_without_end_is_one_message(convo, model):
    (model / "config.json").write_text("[" * 200_000)
    assert convo("chat", "model").err.startswith("error: model/config.json: nested too deeply\n")


def test_an_absurd_number_of_added_tokens_is_refused(convo, model, monkeypatch):
    monkeypatch.setattr("convo_cli.text.tokenizers.pretrained.MAX_ADDED_TOKENS", 3)
    result = convo("chat", "model", stdin=b"hi\n")
    assert result.code == 2
    assert "its tokenizer has 5 added tokens" in result.err


# The source

OWN_PROCESSES = "worker_processes.py"
"""Exchanges pickles with processes that it has started itself, over pipes that no other process
holds.
"""
RUNTIME_PROCESS = "export/bounded/runtime_process.py"
"""Imports the module of a format, which its client names, and the packages of its runtime."""
EXPORTING = "export/exporting.py"
"""Imports the packages that a format of convo's own names (`About.writes_with`)."""
RUNTIME_OF_FOLDERS = "export/folders/transformers_runtime.py"
"""Opens exports in the runtime process, also the one pickle that convo writes."""
RUNTIME_OF_ADAPTER = "export/folders/adapter.py"
WITHOUT_CODE = ("PeftModel.from_pretrained", "GenerationConfig.from_pretrained")
"""Calls of the runtime of adapters that have no code to load, on a folder that convo wrote."""


def calls():
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield file.relative_to(SOURCE).as_posix(), ast.unparse(node.func), node


def is_fixed_import(name, node):
    """Return whether a call imports a module whose name stands in the source."""
    return name == "importlib.import_module" and isinstance(node.args[0], ast.Constant)


def test_nothing_in_convo_reads_a_pickle_or_runs_a_text():
    banned = re.compile(
        r"(.*\.)?(eval|exec|compile_command)|pickle\..*|torch\.load|(np|numpy)\.(load|save|savez)|marshal\..*|shelve\..*"
        r"|joblib\..*|dill\..*|torch\.hub\..*|importlib\.import_module|__import__|os\.(system|popen)"
    )
    found = [
        file
        for file, name, node in calls()
        if banned.fullmatch(name) and node.args and not is_fixed_import(name, node)
    ]
    assert set(found) == {OWN_PROCESSES, RUNTIME_PROCESS, EXPORTING}
    sources = [
        file.read_text(encoding="utf-8")
        for file in SOURCE.rglob("*.py")
        if file.relative_to(SOURCE).as_posix() != OWN_PROCESSES
    ]
    imported = re.compile(
        r"^\s*(import|from) (pickle|marshal|shelve|dill|joblib|cloudpickle|multiprocessing)\b", re.M
    )
    assert not [match[0] for source in sources for match in imported.finditer(source)]
    assert not any("allow_pickle" in source or "shell=True" in source for source in sources)


def test_everything_that_is_loaded_by_transformers_is_loaded_without_code():
    loads = [(file, node) for file, name, node in calls() if name.endswith(".from_pretrained")]
    assert {file for file, _ in loads} >= {"model/loading.py", "text/tokenizers/pretrained.py"}
    for file, node in loads:
        if file == RUNTIME_OF_ADAPTER and ast.unparse(node.func) in WITHOUT_CODE:
            continue
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert options["trust_remote_code"] == "False", file
        if "Model" not in ast.unparse(node.func):
            continue
        if file == RUNTIME_OF_FOLDERS:
            assert options["weights_only"] == "True"
        else:
            assert options["use_safetensors"] == "True", file


def test_one_format_of_export_writes_a_pickle_and_only_the_runtime_process_opens_it():
    assert {file for file, name, _ in calls() if name == "torch.save"} == {
        "export/folders/legacy.py"
    }
    opens = re.compile(r"\bTransformersRuntime\(")
    openers = {
        node.name
        for file in (SOURCE / "export").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and opens.search(ast.unparse(node))
    }
    assert openers == {"open_runtime"}
    callers = {file for file, name, _ in calls() if name.endswith("open_runtime")}
    assert callers == {RUNTIME_PROCESS}


def test_transformers_itself_renders_in_the_immutable_sandbox():
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from transformers.utils.chat_template_utils import _compile_jinja_template

    assert isinstance(_compile_jinja_template("a").environment, ImmutableSandboxedEnvironment)


def test_only_safetensors_and_text_is_downloaded_and_nothing_whose_name_controls_a_terminal():
    from huggingface_hub.utils import filter_repo_objects

    from convo_cli.text.tokenizers.hub import _FILES, _NO_FILES

    good = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "spiece.model",
        "README.md",
        "chat_template.jinja",
    ]
    code = [
        "evil.py",
        "pytorch_model.bin",
        "a.pt",
        "a.pth",
        "a.ckpt",
        "a.pkl",
        "a.so",
        "a.safetensors.bin",
        "a/b.json",
    ]
    evil = ["\x1b]0;evil\x07.json", "a\x9b666m.json", "a\rb.json", "a\nb.md"]
    kept = filter_repo_objects(
        [*good, *code, *evil], allow_patterns=_FILES, ignore_patterns=_NO_FILES
    )
    assert list(kept) == good


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_a_pipe_in_a_model_folder_is_not_waited_for(convo, model):
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    assert convo("chat", "model").err.startswith("error: model/config.json: not a regular file\n")
