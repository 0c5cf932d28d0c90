"""The base and its licence come from the base's own card, which may hold anything."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace

import pytest
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.export.card import base_model, model_card
from convo_cli.export.card.base_model import find_base, is_hub_id, read_publisher_fields
from convo_cli.export.card.front_matter import read_front_matter
from convo_cli.export.card.model_card import write_card
from convo_cli.model.adapters.adapter_files import Adapter, AdapterBase, AdapterConfig
from convo_cli.runs.provenance.run_info import BaseModelFiles, read_run_info, write_provenance
from tests.unit.export.card.conftest import ABOUT, RECEIPT

CONFIG = b'{"model_type": "gpt2"}'
SHA256 = hashlib.sha256(CONFIG).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_base(folder, card):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes(CONFIG)
    if card is not None:
        (folder / "README.md").write_bytes(card)
    return folder


def read(folder, block):
    write_base(folder, b"---\n" + block + b"\n---\n# A card\n")
    return read_front_matter(folder)


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (b"license: mit", {"license": ["mit"]}),
        (b"license: 'mit' # c", {"license": ["mit"]}),
        (b"language:\n- en\n- no", {"language": ["en", "no"]}),
        (b"language: [en, [x], {a: b}]\nlicense: null", {}),
        (b"license: ~\nlicense_name: ''\nlicense_link: \"~\"", {"license_link": ["~"]}),
        (b"license: {a: b}\nother: {license: mit}", {}),
        (b"? [license]\n: license\nlicense: mit", {"license": ["mit"]}),
        (b"license: mit\nlicense: gpl", {"license": ["mit"]}),
        (b"a: &x [mit]\nlicense: *x", {}),
        (b"license: !!python/object/apply:os.system ['id']", {"license": ["id"]}),
        (b"- license: mit", {}),
        (b"license: " + b"x" * 301, {}),
        (b"license: [" + b"a, " * 500 + b"a]", {"license": ["a"] * 100}),
        (b"license: \xff", {}),
        (b'license: "\\Uffffffff"', {}),
        (b'license: "mit', {}),
        (b"%YAML 9.9\n--- \nlicense: x", {}),
        (b"", {}),
    ],
)  # fmt: skip
def test_only_texts_and_lists_of_texts_are_read(tmp_path, block, found):
    assert read(tmp_path, block) == found


@pytest.mark.parametrize(
    "block",
    [
        b"a: " + b"[" * 100_000,
        b"license: mit\na: " + b"{b: " * 40_000,
        b"\n".join(b"a%d: &a%d [%s]" % (i, i, b"*a%d," % (i - 1) * 9) for i in range(1, 99)),
        b"a: b\n" * 10_000,
        b"x" * 3_000_000,
        b"? " * 60_000,
        b"- " * 60_000,
    ],
)  # fmt: skip
def test_a_bomb_takes_a_bounded_time(tmp_path, block):
    write_base(tmp_path, b"---\n" + block + b"\n---\n")
    begin = time.process_time()
    assert read_front_matter(tmp_path).keys() <= {"license"}
    assert time.process_time() - begin < 5


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("base")
    assert isinstance(read(folder, content), dict)
    (folder / "README.md").write_bytes(content)
    assert isinstance(read_front_matter(folder), dict)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "none"])
def test_a_card_that_is_no_file_is_not_read(tmp_path, kind):
    other = write_base(tmp_path / "private", b"---\nlicense: mit\n---\n") / "README.md"
    folder = write_base(tmp_path / "base", None)
    file = folder / "README.md"
    make = {
        "link": lambda: file.symlink_to(other),
        "pipe": lambda: os.mkfifo(file),
        "folder": file.mkdir,
        "none": lambda: None,
    }
    make[kind]()
    assert read_front_matter(folder) == {}


@pytest.fixture
def fine_tuned(run, source_of):
    """Makes the run one from a pretrained model."""

    def make(**fields):
        info = read_run_info(run)
        base = BaseModelFiles(**{"commit": None, "sha256": {"config.json": SHA256}, **fields})
        write_provenance(run, info.model_copy(update={"base_model": base}))
        return source_of(run.checkpoint(0))

    return make


def card_of(source, folder, about=ABOUT):
    folder.mkdir(exist_ok=True)
    write_card(folder, "talker", "huggingface", about, source, RECEIPT)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_licence_of_a_local_base_is_that_of_its_card(fine_tuned, run, tmp_path):
    write_base(run.path.parent / "base", b"---\nlicense: other\nlicense_name: <b>x\n---\n")
    card = card_of(fine_tuned(source="/home/jane/base", from_run="../base"), tmp_path / "out")
    assert "fine-tuned from a pretrained model that was a local folder, with" in card
    assert f"- `config.json`: `{SHA256}`\n" in card
    assert "- Licence, as its card names it: `other` (`<b>x`)\n" in card
    assert "This model has no licence yet." in card
    head = card.split("\n---\n")[0]
    assert not any(key in head for key in ("license", "base_model"))
    assert "jane" not in card


@pytest.mark.parametrize("missing", ["card", "licence", "base", "another"])
def test_a_missing_licence_is_named_as_missing(fine_tuned, run, tmp_path, missing):
    folder = run.path.parent / "base"
    if missing != "base":
        cards = {"card": None, "licence": b"---\nlanguage: en\n---\n"}
        write_base(folder, cards.get(missing, b"---\nlicense: mit\n---\n"))
    if missing == "another":
        (folder / "config.json").write_bytes(b"{}")
    card = card_of(fine_tuned(source="base", from_run="../base"), tmp_path / "out")
    assert "- Licence: not known, because" in card
    assert "`mit`" not in card


def cache(tmp_path, monkeypatch, card):
    """Write a model of the hub's cache, where files are links to blobs."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--org--base"
    snapshot = repository / "snapshots" / COMMIT
    write_base(repository / "blobs", card)
    snapshot.mkdir(parents=True)
    for name in ("README.md", "config.json"):
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    return snapshot


def test_a_base_of_the_hub_is_named_by_id_and_commit(fine_tuned, monkeypatch, tmp_path):
    cache(tmp_path, monkeypatch, b"---\nlicense: cc-by-sa-4.0\n---\n")
    card = card_of(fine_tuned(source="org/base", commit=COMMIT), tmp_path / "out")
    assert f"fine-tuned from `org/base` at commit `{COMMIT}`" in card
    assert "base_model: org/base\n" in card
    assert "base_model_relation: finetune\n" in card
    assert "license: cc-by-sa-4.0\n" in card
    assert "`cc-by-sa-4.0`, because the base model's licence demands it." in card


def test_a_link_of_the_cache_that_leads_out_of_it_is_not_followed(monkeypatch, tmp_path):
    snapshot = cache(tmp_path, monkeypatch, b"---\nlicense: mit\n---\n")
    (tmp_path / "private").write_bytes(b"---\nlicense: secret\n---\n")
    assert read_front_matter(snapshot) == {"license": ["mit"]}
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to(tmp_path / "private")
    assert read_front_matter(snapshot) == {}


def test_an_adapter_belongs_to_its_base(source, monkeypatch, tmp_path):
    folder = write_base(tmp_path / "base", b"---\nlicense: mit\n---\n")
    adapter = Adapter(
        config=AdapterConfig(r=8, lora_alpha=16, target_modules=("c_attn",)),
        base=AdapterBase(
            source="org/base", commit=COMMIT, sha256={"config.json": SHA256}, num_embeddings=9
        ),
    )
    for module in (base_model, model_card):
        monkeypatch.setattr(module, "adapter_of", lambda _: adapter)
    alone = replace(ABOUT, merges=False, library="peft", tags=("lora",))
    card = card_of(replace(source, base=folder), tmp_path / "out", alone)
    assert (
        f"A LoRA adapter for multi-turn conversations, for `org/base` at commit `{COMMIT}`" in card
    )
    assert "Adapter: LoRA of rank 8, alpha 16" in card
    assert "base_model_relation: adapter\nlibrary_name" not in card
    assert "base_model_relation: adapter" in card
    assert "- lora" in card
    assert "Licence, as its card names it: `mit`" in card
    merged = card_of(replace(source, base=folder), tmp_path / "out")
    assert "base_model_relation: finetune" in merged


@pytest.mark.parametrize(
    "text", ["/home/jane/model", "../x", "a/b/c", "a--b", "", None, "a b", "x.git"]
)
def test_a_path_is_no_hub_id(text):
    assert not is_hub_id(text)


def test_a_run_json_cannot_name_a_path_as_a_hub_id(fine_tuned, tmp_path):
    source = fine_tuned(source="/home/jane/base", commit=COMMIT)
    assert find_base(source).hub_id is None
    assert "jane" not in card_of(source, tmp_path / "out")


def test_what_a_publisher_stated_is_checked(tmp_path):
    found = {
        "language": ["en", "<b>", "English"],
        "base_model": "/home",
        "base_model_relation": "x",
    }
    write_base(tmp_path, f"---\n{json.dumps(found)}\n---\n".encode())
    stated = read_publisher_fields(tmp_path)
    assert stated == base_model.PublisherFields(None, None, None, ("en",))
