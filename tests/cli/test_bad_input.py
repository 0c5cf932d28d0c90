"""Wrong input of every kind: one message, the right exit code, and nothing written."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cases import quick_first, quick_only
from tests.commands import Result, environment, run_process, settings, snapshot

RUN, EXPORT = "runs/tiny", "exports/tiny"
LAST = f"{RUN}/checkpoints/step-00000006"
PRETRAINED = ["model.scratch=null", "model.pretrained=model"]
LEAKS = re.compile(
    r"Traceback|Errno|INTERNAL|site-packages|\.py\b|huggingface\.co|ignore_mismatched|\x1b"
    r"|Value error|<class |(?<!=)\b(?:None|True|False)\b|Config\("
    r"|(?<!of )(?<![.\d])\b1 "
    r"(?:bytes|characters|dialogues|files|lines|replies|steps|tokens|turns)\b"
)
"""Signs that a library speaks to its programmers instead of convo to its users."""


@dataclass(frozen=True)
class Case:
    """A command line that must be refused, and the files that it finds."""

    arguments: str | list[str]
    code: int
    says: str
    """What the message begins with, after `error: `; … stands for anything."""
    prepare: Callable[[Path], object] = lambda work: None
    stdin: bytes = b""

    @property
    def words(self) -> list[str]:
        return self.arguments.split() if isinstance(self.arguments, str) else self.arguments


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda work: (work / name).write_bytes(data)


def remove(*names: str) -> Callable[[Path], object]:
    return lambda work: [
        path.unlink() if (path := work / name).is_file() else shutil.rmtree(path) for name in names
    ]


def flip(*names: str) -> Callable[[Path], object]:
    """Change one bit near the end of each file."""

    def change(work: Path) -> None:
        for name in names:
            data = bytearray((work / name).read_bytes())
            data[-9] ^= 1
            (work / name).write_bytes(data)

    return change


def model(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Make a Hugging Face folder `model` without convo's own files, then change it."""

    def prepare(work: Path) -> None:
        shutil.copytree(work / EXPORT, work / "model")
        own = ("MANIFEST.json", "dialogue.json", "receipt.json", "expected.json")
        remove(*(f"model/{name}" for name in own))(work)
        change(work / "model")

    return prepare


def without_chat_template(folder: Path) -> None:
    """Remove the chat template from both files that state it."""
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["chat_template"]
    file.write_text(json.dumps(config))


def other_export(work: Path) -> None:
    """Make a folder `other` as an export for ONNX Runtime has it."""
    shutil.copytree(work / EXPORT, work / "other")
    (work / "other/model.safetensors").rename(work / "other/model.onnx")
    (work / "other/receipt.json").write_text('{"export": "onnx"}')


def tensors(change: Callable[[dict], object]) -> Callable[[Path], object]:
    """Change the weights of a folder."""

    def rewrite(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        file = folder / "model.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file, metadata={"format": "pt"})

    return rewrite


def config_json(**changes: object) -> Callable[[Path], object]:
    def rewrite(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return rewrite


def truncate(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def link(folder: Path) -> None:
    (folder / "link").symlink_to(EXPORT)


def train(*pairs: str) -> list[str]:
    return ["train", "config.yaml", *settings("name=new", *pairs)]


WEIGHT = "transformer.h.0.attn.c_attn.weight"
USERS = '["Hello"]\n["Hello", "Hi!"]\n["Bye"]\n'
DIALOGUE = '["Hello", "Hi!"]\n'
LONG = json.dumps(["Hello", "word " * 400]) + "\n"
TORN = '["Hello", "Hi!"]\n["Hello, "Hi!"]\n'
LATIN = '["Hello", "Café"]\n'.encode("latin-1")
OTHER = json.dumps(["Good morning", "Good morning!"]) + "\n"
MODELS = {
    "is not there": ("./model", lambda work: None, 2, "./model: no such directory"),
    "is no hub id either": ("a/b/c", lambda work: None, 2, "a/b/c: no such directory"),
    "is on a hub that cannot be reached": (
        "nobody/nothing",
        lambda work: None,
        2,
        "nobody/nothing: no such folder; it is not in the local cache of the hub",
    ),
    "has no name": ("", lambda work: None, 2, "'': no such directory"),
    "is a file": ("config.yaml", lambda work: None, 2, "config.yaml: not a directory"),
    "is a data file": (
        "train.jsonl",
        lambda work: None,
        2,
        "train.jsonl: a data file, not a model\nhint: give the path of a folder that exists",
    ),
    "is an empty folder": (
        "model",
        lambda work: (work / "model").mkdir(),
        2,
        "model: empty",
    ),
    "has no config": (
        "model",
        model(remove("config.json")),
        2,
        "model/config.json: not found, so model is not a model folder",
    ),
    "has a torn config": (
        "model",
        model(write("config.json", "{")),
        2,
        "model/config.json: not valid JSON",
    ),
    "has a list as config": (
        "model",
        model(write("config.json", "[]")),
        2,
        "model/config.json: has no model_type",
    ),
    "is of an unknown kind": (
        "model",
        model(config_json(model_type="frobnicate")),
        2,
        'model: transformers … does not know models of type "frobnicate"',
    ),
    "has no weights": (
        "model",
        model(remove("model.safetensors")),
        2,
        "model: there is no model.safetensors",
    ),
    "has only a pickle": (
        "model",
        model(lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin")),
        2,
        "model: its weights are in pytorch_model.bin, a pickle, which can run code",
    ),
    "has empty weights": (
        "model",
        model(write("model.safetensors", "")),
        2,
        "model/model.safetensors: damaged (",
    ),
    "has garbage as weights": (
        "model",
        model(write("model.safetensors", "?" * 99)),
        2,
        "model/model.safetensors: not a safetensors file, or damaged (the header would be",
    ),
    "has half of its weights": (
        "model",
        model(truncate("model.safetensors", 9999)),
        2,
        "model/model.safetensors: damaged (…not fully covered",
    ),
    "has weights of another size": (
        "model",
        model(config_json(n_embd=64)),
        2,
        "model: the tensor transformer.h.0.attn.c_attn.bias has the shape 96 in the weights, but",
    ),
    "lacks a tensor": (
        "model",
        model(tensors(lambda weights: weights.pop(WEIGHT))),
        2,
        f"model: the weights lack the tensor {WEIGHT}",
    ),
    "holds NaN": (
        "model",
        model(tensors(lambda weights: weights[WEIGHT].fill_(float("nan")))),
        2,
        f"model: the tensor {WEIGHT} contains values that are not finite",
    ),
    "has no tokenizer": (
        "model",
        model(remove("tokenizer.json")),
        2,
        "model: no readable tokenizer (the folder has no tokenizer.json, … without it)",
    ),
    "has a torn tokenizer": (
        "model",
        model(truncate("tokenizer.json", 500)),
        2,
        "model: no readable tokenizer (tokenizer.json is damaged: ",
    ),
}
"""What may be wrong with a foreign model: its name, how it came to be, exit code, message."""
OPENED = {
    "is a run without checkpoints": (
        RUN,
        remove(f"{RUN}/checkpoints/step-00000003", LAST),
        5,
        f"{RUN}: no checkpoint is intact",
    ),
    "is a damaged checkpoint": (
        LAST,
        flip(f"{LAST}/model.safetensors"),
        5,
        f"{LAST}/model.safetensors: damaged",
    ),
    "is a checkpoint with a file too many": (
        LAST,
        write(f"{LAST}/notes.txt", ""),
        5,
        f"{LAST}/notes.txt: not part of the checkpoint",
    ),
    "is a checkpoint with a file too few": (
        LAST,
        remove(f"{LAST}/config.json"),
        5,
        f"{LAST}/config.json: missing",
    ),
    "is an export with a flipped bit": (
        EXPORT,
        flip(f"{EXPORT}/model.safetensors"),
        5,
        f"{EXPORT}/model.safetensors: damaged",
    ),
    "is an export with a torn manifest": (
        EXPORT,
        write(f"{EXPORT}/MANIFEST.json", "{"),
        5,
        f"{EXPORT}/MANIFEST.json: not a readable manifest",
    ),
    "has a garbled dialogue.json": (
        "model",
        model(write("dialogue.json", "\x00")),
        5,
        "model/dialogue.json: cannot be read (Invalid JSON",
    ),
    "has another tokenizer than dialogue.json says": (
        "model",
        lambda work: [
            shutil.copytree(work / EXPORT, work / "model"),
            remove("model/MANIFEST.json")(work),
            (file := work / "model/dialogue.json").write_text(
                file.read_text().replace('"pad_id": ', '"pad_id": 1')
            ),
        ],
        6,
        "model: the tokenizer or template differs from that of the training run: pad_id is 1",
    ),
}
"""The same for folders that convo made."""

CASES = {
    # What a command is given at all.
    "init-config: unknown preset": Case("init-config --preset gtp2", 2, "…gtp2…gpt2"),
    "init-config: the file exists": Case(
        "init-config -o config.yaml", 2, "config.yaml: already exists"
    ),
    "init-config: a folder": Case("init-config -o runs", 2, "runs: not a regular file"),
    "init-config: into no folder": Case(
        "init-config -o nowhere/config.yaml", 2, "nowhere/config.yaml: there is no folder"
    ),
    "validate-data: nothing": Case("validate-data", 2, "no file to check"),
    "validate-data: missing": Case("validate-data trian.jsonl", 2, "trian.jsonl does not exist"),
    "validate-data: a folder": Case("validate-data runs", 2, "runs is a directory"),
    "validate-data: no config": Case(
        "validate-data --config nope.yaml", 2, "nope.yaml: no such file"
    ),
    # The config.
    "train: no config": Case("train nope.yaml", 2, "nope.yaml: no such file"),
    "train: a folder as config": Case(
        "train runs", 2, "runs: this is a directory, not a config file"
    ),
    "train: an empty config": Case(
        "train c.yaml", 2, "c.yaml: the file is empty", write("c.yaml", "")
    ),
    "train: data as config": Case("train train.jsonl", 2, "train.jsonl:…"),
    "train: broken YAML": Case(
        "train c.yaml", 2, "c.yaml:3:1: not valid YAML", write("c.yaml", "model:\n  scratch: [\n")
    ),
    "train: a wrong key": Case(
        train("training.lr=1"),
        2,
        "--set training.lr: unknown key; convo calls it training.learning_rate",
    ),
    "train: a wrong value": Case(
        train("training.max_steps=many"), 2, "--set training.max_steps: …many…"
    ),
    "train: no key=value": Case(
        train("training.max_steps"), 2, "--set training.max_steps: not of the form KEY=VALUE"
    ),
    "train: keys that disagree": Case(
        train("training.micro_batch_size=9"),
        2,
        "--set training.micro_batch_size: 9 is more than batch_size 4",
    ),
    "train: an unknown device": Case(
        train("training.device=gpu"), 2, "--set training.device: found gpu"
    ),
    "train: a GPU that is not there": Case(
        train("training.device=cuda:7"), 2, "device cuda:7: this machine has …"
    ),
    # Its data.
    "train: missing data": Case(
        train("data.train=nope.jsonl"), 2, "--set data.train: nope.jsonl does not exist"
    ),
    "train: a folder as data": Case(
        train("data.train=runs"), 2, "--set data.train: runs is a directory"
    ),
    "train: no dialogue": Case(
        train("data.train=d.jsonl"),
        3,
        "d.jsonl:1:1 $ the file contains no dialogues",
        write("d.jsonl", ""),
    ),
    "train: a torn line": Case(
        train("data.train=d.jsonl"), 3, "d.jsonl:2:11 $", write("d.jsonl", TORN)
    ),
    "train: a torn validation line": Case(
        train("data.validation=d.jsonl"), 3, "d.jsonl:2:11 $", write("d.jsonl", TORN)
    ),
    "train: no UTF-8": Case(
        train("data.train=d.jsonl"),
        3,
        "d.jsonl:1:15 $[1] the byte 0xE9 is not valid UTF-8",
        write("d.jsonl", LATIN),
    ),
    "train: nothing to learn": Case(
        train("data.train=d.jsonl"),
        3,
        "the data cannot be trained on: 2 errors\n  d.jsonl:1:1 $ the dialogue has no turn to",
        write("d.jsonl", USERS),
    ),
    "train: a turn longer than the window": Case(
        train("data.train=d.jsonl"),
        3,
        "the data cannot be trained on: 1 error\n  d.jsonl:1:1 $ a turn of …does not fit",
        write("d.jsonl", LONG),
    ),
    "train: fewer pieces than characters": Case(
        train("tokenizer.kind=bpe", "tokenizer.vocab_size=300"),
        3,
        "tokenizer.vocab_size is 300, but …need 455 pieces",
    ),
    # Its place.
    "train: a run of that name": Case("train config.yaml", 5, "runs/tiny: already exists"),
    "train: a file of that name": Case(
        train(), 5, "runs/new: already exists", write("runs/new", "")
    ),
    "train: a file as output_dir": Case(
        train("output_dir=config.yaml"), 7, "config.yaml/new: cannot be created, because …is a file"
    ),
    "train: a run as pretrained": Case(
        train(*PRETRAINED[:1], f"model.pretrained={RUN}"),
        2,
        f"--set model.pretrained: {RUN}/config.json: not found",
    ),
    "train: longer than the model reads": Case(
        train(*PRETRAINED, "dialogue.max_length=256"),
        2,
        "dialogue.max_length is 256, but the model reads at most 128 tokens",
        model(lambda folder: None),
    ),
    "train: no chat template": Case(
        train(*PRETRAINED, "dialogue.template=native"),
        2,
        "dialogue.template is native, but this tokenizer has no chat template",
        model(without_chat_template),
    ),
    # Resume.
    "resume: not there": Case("resume runs/nope", 2, "runs/nope: no such run directory"),
    "resume: a file": Case("resume config.yaml", 5, "config.yaml: a config"),
    "resume: another folder": Case("resume runs", 5, "runs: not a run directory"),
    "resume: a checkpoint": Case(["resume", LAST], 5, f"{LAST}: a checkpoint of the run runs/tiny"),
    "resume: an export": Case(["resume", EXPORT], 5, f"{EXPORT}: a model without"),
    "resume: no checkpoint": Case(
        ["resume", RUN],
        5,
        f"{RUN}: no checkpoint is intact",
        remove(f"{RUN}/checkpoints/step-00000003", LAST),
    ),
    "resume: every checkpoint damaged": Case(
        ["resume", RUN, "-q"],
        5,
        f"{RUN}: no checkpoint is intact",
        flip(f"{RUN}/checkpoints/step-00000003/optimizer.safetensors", f"{LAST}/model.safetensors"),
    ),
    "resume: the best checkpoint damaged": Case(
        ["resume", RUN, "--load", "loss"],
        5,
        f"{LAST}/model.safetensors: damaged",
        flip(f"{LAST}/model.safetensors"),
    ),
    "resume: a torn config": Case(
        ["resume", RUN],
        2,
        f"{RUN}/config.yaml:1:5: not valid YAML",
        write(f"{RUN}/config.yaml", "a: ["),
    ),
    "resume: no run.json": Case(
        ["resume", RUN],
        5,
        f"{RUN}/run.json: cannot be read (No such file",
        remove(f"{RUN}/run.json"),
    ),
    "resume: a torn run.json": Case(
        ["resume", RUN],
        5,
        f"{RUN}/run.json: cannot be read (Invalid JSON",
        write(f"{RUN}/run.json", "{"),
    ),
    "resume: no data": Case(
        ["resume", RUN], 2, "…/train.jsonl does not exist", remove("train.jsonl")
    ),
    "resume: changed training data": Case(
        ["resume", RUN],
        6,
        "…/train.jsonl: not the data that the run began with",
        write("train.jsonl", OTHER),
    ),
    "resume: changed validation data": Case(
        ["resume", RUN],
        6,
        "…/valid.jsonl: not the data that the run began with",
        write("valid.jsonl", OTHER),
    ),
    "resume: fewer data files": Case(
        ["resume", RUN, *settings("data.validation=[]")], 6, "data.validation lists 0 files, but …1"
    ),
    "resume: another size": Case(
        ["resume", RUN, *settings("model.scratch.layers=3")], 6, "model.scratch.layers …"
    ),
    "resume: another template": Case(
        ["resume", RUN, *settings("dialogue.template=chatml")], 6, "dialogue.template …"
    ),
    "resume: a fork without a step to take": Case(
        ["resume", RUN, *settings("name=other")],
        2,
        "runs/other: not created, because no step is left (all 6 steps done)\nhint: --set "
        "training.max_steps=12",
    ),
    "resume: a wrong key": Case(
        ["resume", RUN, *settings("training.step=9")], 2, "--set training.step: unknown key"
    ),
    # Export.
    "export: not there": Case("export runs/nope out", 2, "runs/nope: no such directory"),
    "export: a file": Case("export config.yaml out", 2, "config.yaml: not a directory"),
    "export: a foreign model": Case(
        "export model out", 5, "model/dialogue.json: not found", model(lambda folder: None)
    ),
    "export: a foreign folder": Case("export runs out", 5, "runs/dialogue.json: not found"),
    "export: onto an export": Case(["export", RUN, EXPORT], 2, f"{EXPORT}: not empty"),
    "export: onto a file": Case(
        ["export", RUN, "config.yaml"], 2, "config.yaml: not a folder, but a file"
    ),
    "export: below a file": Case(
        ["export", RUN, "config.yaml/out"],
        7,
        "config.yaml/out: cannot be created, because …is a file",
    ),
    "export: onto a symbolic link": Case(["export", RUN, "link"], 2, "link: a symbolic link", link),
    "export: onto a symbolic link by force": Case(
        ["export", RUN, "link", "--force"], 2, "link: a symbolic link", link
    ),
    "export: through a symbolic link": Case(
        ["export", RUN, "link/out"], 2, "link/out: inside …/exports/tiny", link
    ),
    "export: onto its checkpoint": Case(
        ["export", RUN, LAST], 2, f"{LAST}: inside {RUN}, which must stay unchanged"
    ),
    "export: onto its checkpoint by force": Case(
        ["export", RUN, LAST, "--force"], 2, f"{LAST}: inside …"
    ),
    "export: into its checkpoint": Case(
        ["export", RUN, f"{LAST}/out"], 2, f"{LAST}/out: inside …which must stay unchanged"
    ),
    "export: among the checkpoints": Case(
        ["export", RUN, f"{RUN}/checkpoints/out"], 2, f"{RUN}/checkpoints/out: inside …"
    ),
    "export: onto a full folder by force": Case(
        ["export", RUN, "runs", "--force"], 2, "runs: not an earlier export"
    ),
    "export: onto a pipe": Case(
        ["export", RUN, "pipe"],
        2,
        "pipe: not a folder, but a pipe (FIFO)",
        lambda work: os.mkfifo(work / "pipe"),
    ),
    "export: onto a dangling link": Case(
        ["export", RUN, "link", "--force"],
        2,
        "link: a symbolic link",
        lambda work: (work / "link").symlink_to("nowhere"),
    ),
    "export: onto its run": Case(["export", RUN, RUN, "--force"], 2, f"{RUN}: the source itself"),
    "export: onto itself": Case(
        ["export", EXPORT, EXPORT, "--force"], 2, f"{EXPORT}: the source itself"
    ),
    "export: into its run": Case(["export", RUN, f"{RUN}/out"], 2, f"{RUN}/out: inside {RUN}, …"),
    "export: an unknown format": Case(
        ["export", RUN, "out", "--format", "hugging face"],
        2,
        '--format "hugging face": there is no such format\nhint: did you mean --format hugging…',
    ),
    "export: an unknown type of weights": Case(
        ["export", RUN, "out", "--dtype", "fp64"],
        2,
        '--dtype "fp64": --format huggingface writes …',
    ),
    "export: a format of one file in parts": Case(
        ["export", RUN, "out", "--format", "legacy", "--max-shard-size", "1GB"],
        2,
        "--max-shard-size: --format legacy writes one file of weights",
    ),
    "export: parts without a unit": Case(
        ["export", RUN, "out", "--max-shard-size", "5"],
        2,
        "Invalid value for '--max-shard-size': 5: give a size, such as 2GB or 500MB",
    ),
    "export: parts of a kilobyte": Case(
        ["export", RUN, "out", "--max-shard-size", "1kb"],
        2,
        "Invalid value for '--max-shard-size': 1kb: a file of weights has at least 1MB",
    ),
    "export: the adapter of a whole model": Case(
        ["export", RUN, "out", "--format", "adapter"],
        2,
        "--format adapter exports the adapter of a run with model.lora, but this is a whole model",
    ),
    "export: nowhere": Case(
        ["export", RUN], 2, f"Missing argument 'OUT'.\nhint: convo export {RUN}"
    ),
    "export: an export for another program": Case(
        "export other out",
        2,
        "other: an export of --format onnx, which is for another program than convo",
        other_export,
    ),
    "export: an ONNX model of others": Case(
        "export model out",
        2,
        "model: its weights are in m.onnx, the format of ONNX, but convo opens only",
        lambda work: [(work / "model").mkdir(), (work / "model/m.onnx").write_bytes(b"x")],
    ),
    "export: --verify with a folder to write": Case(
        ["export", EXPORT, "out", "--verify"], 2, "--verify writes nothing, so it takes one folder"
    ),
    "export: --verify with another option": Case(
        ["export", EXPORT, "--verify", "--format", "onnx"],
        2,
        "--verify reads an export as it is, so --format has no effect",
    ),
    # Chat.
    "chat: an export for another program": Case(
        "chat other", 2, "other: an export of --format onnx, which is for", other_export, b"hi\n"
    ),
    "chat: a device file": Case(
        f"chat {os.devnull}", 2, f"{os.devnull}: not a directory\nhint: give the path of a folder"
    ),
    "evaluate: a device file as the base": Case(
        ["evaluate", RUN, "train.jsonl", "--base", os.devnull], 2, f"{os.devnull}: not a directory"
    ),
    "chat: an unknown device": Case(
        ["chat", EXPORT, "--device", "gpu"], 2, "--device gpu: unknown"
    ),
    "chat: a GPU that is not there": Case(
        ["chat", EXPORT, "--device", "cuda:7"], 2, "device cuda:7: this machine has …"
    ),
    "serve: all networks without a key": Case(
        ["serve", EXPORT, "--host", "0.0.0.0"], 2, "--host 0.0.0.0: other machines"
    ),
    "serve: no model": Case("serve nowhere", 2, "nowhere"),
    "chat: a model that nobody knows how to talk to": Case(
        "chat model",
        2,
        "model: no dialogue.json and no chat template",
        model(without_chat_template),
    ),
    # Evaluate.
    "evaluate: missing data": Case(
        ["evaluate", EXPORT, "nope.jsonl"], 2, "nope.jsonl does not exist"
    ),
    "evaluate: stdin": Case(["evaluate", EXPORT, "-"], 2, "evaluate reads its data twice"),
    "evaluate: a torn line": Case(
        ["evaluate", EXPORT, "d.jsonl"], 3, "d.jsonl:2:11 $", write("d.jsonl", TORN)
    ),
    "evaluate: no dialogue": Case(
        ["evaluate", EXPORT, "d.jsonl"],
        3,
        "d.jsonl:1:1 $ the file contains no dialogues",
        write("d.jsonl", ""),
    ),
    "evaluate: nothing to score": Case(
        ["evaluate", EXPORT, "d.jsonl"],
        3,
        "d.jsonl: there is nothing to score",
        write("d.jsonl", '["Hi"]\n'),
    ),
    "evaluate: a GPU that is not there": Case(
        ["evaluate", EXPORT, "valid.jsonl", "--device", "cuda:7"], 2, "device cuda:7: …"
    ),
    # A model, wherever one is opened.
    **{
        f"chat: a model that {what}": Case(["chat", name], code, says, prepare, b"hi\n")
        for what, (name, prepare, code, says) in {**MODELS, **OPENED}.items()
    },
    **{
        f"evaluate: a model that {what}": Case(
            ["evaluate", name, "valid.jsonl"], code, says, prepare
        )
        for what, (name, prepare, code, says) in {**MODELS, **OPENED}.items()
    },
    **{
        f"train: a model that {what}": Case(
            train(*PRETRAINED[:1], f"model.pretrained={name}"), code, says, prepare
        )
        for what, (name, prepare, code, says) in MODELS.items()
        if name
    },
    **{
        f"export: a model that {what}": Case(["export", name, "new/out"], code, says, prepare)
        for what, (name, prepare, code, says) in OPENED.items()
    },
}


def require_refusal(case: Case, result: Result) -> str:
    """Check a refusal in text: notices, then one error with a hint, and an empty stdout."""
    assert (result.code, result.out) == (case.code, ""), result
    assert not LEAKS.search(result.err), result.err
    _notices, *messages = re.split(r"^error: ", result.err, flags=re.MULTILINE)
    (message,) = messages
    assert "\nhint: " in message or re.match(r"[\w/.]+:\d+:\d+: ", message), (
        f"says not what to do: {message}"
    )
    pattern = re.escape(case.says).replace("…", r"[^\n]*")
    # A path in a --set is reported with the --set.
    assert re.match(rf"(--set [\w.]+: )?{pattern}", message), message
    assert len(result.err) < 2000
    return message


def one_command_each(names):
    """Return one of the cases of each model, the commands in turn, and all without a model."""
    by_model = {}
    for name in names:
        by_model.setdefault(name.partition(" a model that ")[2], []).append(name)
    return [
        *by_model.pop("", []),
        *(cases[number % len(cases)] for number, cases in enumerate(by_model.values())),
    ]


@pytest.mark.parametrize("name", quick_only(CASES, *one_command_each(CASES)))
def test_bad_input_gets_one_clear_message_and_changes_nothing(name, work, convo):
    case = CASES[name]
    case.prepare(work)
    before = snapshot(work.parent)
    message = require_refusal(case, convo(*case.words, stdin=case.stdin))
    answer = convo(*case.words, "--json", stdin=case.stdin)
    error = answer.json["error"]
    assert (answer.code, error["exit_code"]) == (case.code, case.code)
    assert answer.json["command"] == case.words[0]
    assert message == f"{error['message']}\n" + (
        f"hint: {error['hint']}\n" if error["hint"] else ""
    )
    after = snapshot(work.parent)
    # What was prepared before the refusal stays for the next try; nothing refers to it.
    # A lock file names its holder, which has ended.
    changed = {path for path in after if after[path] != before.get(path)}
    assert {
        path for path in changed if "runs/.convo-cache" not in path and not path.endswith("/.lock")
    } == set()
    assert before.keys() <= after.keys()


ONE_OF_EACH_COMMAND = (
    "init-config: the file exists",
    "validate-data: missing",
    "train: a torn line",
    "chat: a model that nobody knows how to talk to",
    "serve: all networks without a key",
    "resume: changed training data",
    "export: a model that is a damaged checkpoint",
    "evaluate: a model that has weights of another size",
)


@pytest.mark.parametrize("name", quick_first(ONE_OF_EACH_COMMAND, 3))
def test_the_executable_refuses_as_the_function_does(name, work, convo):
    case = CASES[name]
    case.prepare(work)
    result = run_process(work, *case.words, stdin=case.stdin)
    require_refusal(case, result)
    assert result == convo(*case.words, stdin=case.stdin)


@pytest.mark.parametrize(
    "words",
    [
        "chat {}",
        "resume {}",
        "export {} out",
        "validate-data {}",
        "train config.yaml --set output_dir={}",
    ],
)
def test_a_path_that_the_system_refuses_is_named(convo, work, words):
    long = "n" * 300
    result = convo(*words.format(long).split())
    shown = f"{long[:40]}…{long[:15]}: this name is too long (300 bytes)"
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {shown}\nhint: ")


def test_a_hub_that_does_not_answer_is_given_up_at_once(work):
    """Port 9 stands for an unreachable hub; transformers itself would retry for half a minute."""
    env = environment(HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(work))
    result = run_process(work, "chat", "nobody/nothing", env=env, timeout=20)
    assert result == (
        2,
        "",
        (
            "loading nobody/nothing (this takes a few seconds)\n"
            "error: nobody/nothing: no such folder; it is not in the local cache of the hub, "
            "and the hub cannot be reached\nhint: give an existing folder, or another hub id\n"
        ),
    )
