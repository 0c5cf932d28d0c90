"""docs/exports.md: each file and key that a program reads is in an export, with the right value."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.exported_folders import make_source, write_folder

PAGE = Path(__file__).resolve().parents[2] / "docs/exports.md"
_ROW = re.compile(r"\| ([^|]+) \| ([^|]+) \| `([^`|]+)` \| (?:`([^`|]+)` )?\| ([^|]+) \|")
ROWS = [
    tuple(part or "" for part in found.groups())
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if (found := _ROW.fullmatch(line))
]
READ = sorted({(what, file, key) for _, what, file, key, _ in ROWS})
PROGRAMS = {"transformers 5", "llama.cpp", "vLLM", "TGI"}
ALL_READ = {"weights", "chat template", "end token"}


@pytest.fixture(scope="module")
def exports(make_encoder, tmp_path_factory):
    """Exports of two architectures, and one of them in shards."""
    folder, encoder = tmp_path_factory.mktemp("exports"), make_encoder("cls-sep", 96)
    sources = [make_source(folder / name, name, encoder) for name in ("GPT-2", "Llama")]
    split = replace(sources[0], max_shard_bytes=40_000)
    return sources[0].generator, [
        write_folder(source, folder / f"out-{number}")
        for number, source in enumerate([*sources, split])
    ]


def expected(what, key, generator):
    encoder = generator.encoder
    (end, other), ids = encoder.template.stop_tokens, list(encoder.stop_ids)
    assert end != other
    return {
        "chat template": encoder.template.chat_template,
        "end token": end if key == "eos_token" else ids[0],
        "end tokens": ids,
        "padding token": encoder.pad_id,
        "context length": 128,
        "type": "float32",
        "longest reply": generator.model.generation_config.max_new_tokens,
    }[what]


@pytest.mark.parametrize(("what", "file", "key"), READ)
def test_an_export_holds_what_a_program_reads(exports, what, file, key):
    generator, folders = exports
    present = [folder / file for folder in folders if (folder / file).exists()]
    assert present
    if file.endswith(".safetensors"):
        assert len(present) == 2
        with safe_open(present[0], framework="pt") as opened:
            names = set(opened.keys())
        assert names <= generator.model.state_dict().keys()
        return
    if not key:
        assert [one.read_text(encoding="utf-8") for one in present] == 3 * [
            expected(what, key, generator)
        ]
        return
    values = [json.loads(one.read_bytes()) for one in present]
    stated = [value[key] for value in values if key in value]
    assert stated
    if key == "weight_map":
        assert {*stated[0].values()} == {one.name for one in folders[2].glob("model-*")}
        return
    # Only names of the context length differ between architectures.
    assert len(stated) == 3 or what == "context length"
    assert all(one == expected(what, key, generator) for one in stated)


def test_every_program_has_rows_for_all_that_it_needs():
    for program in PROGRAMS:
        rows = {what.removesuffix("s") if "end" in what else what
                for one, what, *_ in ROWS if one == program}  # fmt: skip
        assert rows >= ALL_READ, program
    assert all(source.strip() for *_, source in ROWS)


def test_every_line_of_the_table_is_read():
    lines = PAGE.read_text(encoding="utf-8").split("| program | what |")[1].split("\n\n")[0]
    assert len(lines.splitlines()) - 2 == len(ROWS)
