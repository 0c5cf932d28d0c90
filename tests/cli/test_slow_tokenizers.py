"""A model with a SentencePiece tokenizer of the first forerunner: trained, resumed, exported."""

from __future__ import annotations

import json

import pytest
from sentencepiece import SentencePieceProcessor

from tests.commands import settings
from tests.slow_tokenizers import FORERUNNER, JAPANESE, KOREAN, STATED, save_model, texts, train

PRETRAINED = settings(
    "name=new", "model.scratch=null", "model.pretrained=base", "training.max_steps=1",
    "training.warmup_steps=0", "data.validation=[]", "dialogue.template=convmodel",
)  # fmt: skip
ENGLISH = [text for text in texts() if text.isascii()][:200]


def write_dialogues(work, spoken):
    pairs = zip(spoken[::2], spoken[1::2], strict=False)
    lines = (json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (work / "train.jsonl").write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize("spoken", [ENGLISH, [*JAPANESE, *KOREAN] * 2], ids=["en", "ja-ko"])
def test_ids_are_sentencepieces_from_training_to_chat(work, convo, spoken):
    from transformers import AutoTokenizer

    from convo_cli.text.contract import load_encoder

    spiece = train(**FORERUNNER)
    save_model(work / "base", spiece, STATED)
    write_dialogues(work, spoken)
    trained = convo("train", "config.yaml", *PRETRAINED)
    assert trained.code == 0, trained.err
    assert (
        "tokenizer: converted spiece.model (BertGenerationTokenizer) to tokenizer.json; the first "
        f"{len(spoken)} training texts get the same ids as from SentencePiece"
    ) in trained.err
    assert "added" not in trained.err, "no token and no row of the embeddings is new"
    assert convo("resume", "runs/new", "-q", *settings("training.max_steps=2")).code == 0
    forked = settings("name=fork", "training.max_steps=3")
    assert convo("resume", "runs/new", "-q", *forked).code == 0
    assert convo("export", "runs/new", "exports/new", "-q").code == 0
    said = convo("chat", "exports/new", "--temperature", "0", stdin=spoken[0].encode())
    assert said.code == 0, said.err
    processor = SentencePieceProcessor(model_proto=spiece)
    expected, sep = processor.encode(spoken), processor.piece_to_id("<sep>")
    checkpoints = [
        folder for run in ("new", "fork") for folder in (work / "runs" / run).glob("checkpoints/*")
    ]
    assert {folder.parts[-3] for folder in checkpoints} == {"new", "fork"}
    for folder in (*checkpoints, work / "exports/new"):
        assert "spiece.model" in json.loads((folder / "MANIFEST.json").read_text())["files"]
        assert (folder / "spiece.model").read_bytes() == spiece
        assert json.loads((folder / "config.json").read_text())["vocab_size"] == len(processor)
    for folder in (*checkpoints[:1], work / "runs/new/tokenizer", work / "exports/new"):
        assert (folder / "spiece.model").read_bytes() == spiece
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer(spoken)["input_ids"] == expected
        messages = [
            {"role": "user", "content": spoken[0]},
            {"role": "assistant", "content": spoken[1]},
        ]
        rendered = tokenizer.apply_chat_template(messages, return_dict=False)
        assert rendered == [sep, *expected[0], sep, *expected[1], sep]
    encoder = load_encoder(work / "exports/new")
    assert encoder.text_ids(spoken) == expected


def test_a_tokenizer_that_differs_on_the_training_text_is_refused_with_an_example(work, convo):
    """Texts with stacks of combining marks, which the tokenizers library drops."""
    save_model(work / "base", train(**FORERUNNER), STATED)
    write_dialogues(work, ["Good morning", "ok \u00bd\u0327 ok", "Hello", "Hello there"])
    result = convo("train", "config.yaml", *PRETRAINED)
    assert (result.code, result.out) == (2, "")
    assert (
        "base: its tokenizer BertGenerationTokenizer cannot be converted, because 1 of 4 training "
        "texts get other ids than from SentencePiece"
    ) in result.err
    assert "in SentencePiece\nhint: save a fast tokenizer with plain transformers" in result.err
    assert not (work / "runs/new").exists()


def test_an_unknown_class_is_refused_by_name(work, convo):
    save_model(work / "base", train(**FORERUNNER), {**STATED, "tokenizer_class": "CpmTokenizer"})
    result = convo("train", "config.yaml", *PRETRAINED)
    assert result.code == 2
    assert "base: convo cannot convert spiece.model for the tokenizer class" in result.err


def test_the_model_of_a_tokenizer_json_travels_too_and_a_damaged_one_is_left_out(work, convo):
    base = work / "exports/tiny"
    for name in ("MANIFEST.json", "dialogue.json"):
        (base / name).unlink()
    spiece = (base / "spiece.model").read_bytes()
    (base / "spiece.model").rename(base / "tokenizer.model")
    own = settings("model.pretrained=exports/tiny", "dialogue.template=turns")
    assert convo("train", "config.yaml", "-q", *PRETRAINED, *own).code == 0
    assert convo("export", "runs/new", "exports/new", "-q").code == 0
    assert (work / "exports/new/tokenizer.model").read_bytes() == spiece
    (base / "tokenizer.model").write_bytes(spiece[:-40])
    other = settings("name=other")
    result = convo("train", "config.yaml", "--dry-run", *PRETRAINED, *own, *other)
    assert result.code == 0
    assert "tokenizer.model: " in result.err
    assert "it is not saved with the run (tokenizer.json is used)" in result.err


def test_a_damaged_model_in_an_export_is_refused_by_name(work, convo):
    folder = work / "exports/tiny"
    (folder / "MANIFEST.json").unlink()
    (folder / "spiece.model").write_bytes(b"damaged")
    result = convo("export", "exports/tiny", "exports/again")
    assert result.code == 2
    assert "spiece.model: not a SentencePiece model, or a damaged one" in result.err
    assert not (work / "exports/again").exists()
