"""Exports open alike in the oldest and the newest transformers 5, each in its own environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from convo_cli.export.folders import legacy
from tests.commands import make_workplace, run_here, settings
from tests.e2e import opened_by_transformers
from tests.exported_folders import make_source, write_folder
from tests.foreign import byte_pairs, fast, save_foreign
from tests.gguf_models import encoder_of, spiece_tokenizer

pytestmark = pytest.mark.slow

TEXTS = ["Hello, world!", " a  b\n\tc", "Straße, Привет, 你好, 안녕 🙂", "x" * 50, "<|user>"]
DIALOGUES = [
    [{"role": "user", "content": "Hello!"}],
    [
        {"role": "user", "content": "Wie geht es dir?"},
        {"role": "assistant", "content": "Gut."},
        {"role": "user", "content": "你好 🙂"},
    ],
]
NATIVE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module", params=["==5.17.0", ""], ids=["5.17.0", "newest"])
def other_python(request, tmp_path_factory):
    """The Python of an environment with that transformers in front of the tests' packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name == "posix")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / ("Lib" if os.name == "nt" else f"lib/{version}") / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # With its dependencies: 5.17 needs an older huggingface_hub. torch is none of them.
    done = subprocess.run(
        [*pip, "--target", str(site), f"transformers{request.param}"],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"pip cannot install transformers{request.param}: {reason[:200]}")
    (site / "zz_torch.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Folders of every kind, by name."""
    root = tmp_path_factory.mktemp("exports")
    texts = [turn["content"] for dialogue in DIALOGUES for turn in dialogue] * 20
    encoders = {kind: encoder_of(spiece_tokenizer(kind, texts, 400)) for kind in ("unigram", "bpe")}
    sources = {kind: make_source(root / kind, "GPT-2", one) for kind, one in encoders.items()}
    folders = {kind: write_folder(source, root / f"{kind}-out") for kind, source in sources.items()}
    folders["llama"] = write_folder(
        make_source(root / "llama", "Llama", encoders["bpe"]), root / "llama-out"
    )
    for dtype in ("bf16", "fp16"):
        folders[dtype] = write_folder(sources["bpe"], root / dtype, dtype)
    split = replace(sources["unigram"], max_shard_bytes=30_000)
    folders["sharded"] = write_folder(split, root / "sharded")
    assert len(list(folders["sharded"].glob("model-*.safetensors"))) > 2
    folders["legacy"] = root / "legacy-out"
    folders["legacy"].mkdir()
    legacy.write(sources["bpe"], folders["legacy"], "fp32", lambda event: None)
    folders["native"] = write_folder(_native(root), root / "native-out")
    folders["merged"] = _merged(root)
    return folders


def _native(root):
    from convo_cli.text.contract import load_encoder
    from convo_cli.text.encoder import DialogueEncoder
    from convo_cli.text.templates.template import make_template

    tokenizer = fast(byte_pairs(), eos_token="<|endoftext|>")
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]}
    )
    tokenizer.chat_template = NATIVE
    encoder = DialogueEncoder(tokenizer, make_template("native", tokenizer), max_length=128)
    source = make_source(root / "native", "Llama", encoder)
    load_encoder(source.folder)  # it reads back as written
    return source


def _merged(root):
    (root / "work").mkdir()
    work = make_workplace(root / "work")
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128}
    end = "<|endoftext|>"
    save_foreign(work / "base", "gpt2", fast(byte_pairs(), bos_token=end, eos_token=end), size)
    changes = settings(
        "model.scratch=null", "model.pretrained=base", "model.lora.rank=2", "data.validation=[]",
        "training.max_steps=1", "name=adapted",
    )  # fmt: skip
    trained = run_here(work, "train", "config.yaml", *changes)
    assert trained.code == 0, trained.err
    exported = run_here(work, "export", "runs/adapted", "merged")
    assert exported.code == 0, exported.err
    return work / "merged"


def test_every_kind_of_export_opens_alike(exports, other_python):
    script = Path(opened_by_transformers.__file__)
    request = {"folders": list(map(str, exports.values())), "texts": TEXTS, "dialogues": DIALOGUES}
    done = subprocess.run(
        [other_python, script],
        input=json.dumps(request), capture_output=True, text=True, timeout=900,
        env={"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        cwd=other_python.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    for name, folder in exports.items():
        found = answer["found"][str(folder)]
        here = opened_by_transformers.answers(str(folder), TEXTS, DIALOGUES)
        assert found == here, f"{name}: transformers {answer['version']} reads it differently"
        stops = json.loads((folder / "generation_config.json").read_bytes())["eos_token_id"]
        assert found["stops"] == stops, name
        assert found["ends"] == [stops[0], stops[0]], name
        assert found["type"] == {"bf16": "torch.bfloat16", "fp16": "torch.float16"}.get(
            name, "torch.float32"
        )
        assert all(found["replies"]), name
