"""Model folders with a SentencePiece model and no tokenizer.json, as older tools left them.

`train` trains a model as the first forerunner's script did, on English, Korean and Japanese.
"""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.conftest import SAMPLE_DATA

JAPANESE = [
    "おはようございます。今日はいい天気ですね。",
    "はい、とても気持ちがいいです。どこかへ行きますか。",
    "友だちと公園で散歩をするつもりです。", "いいですね！ｶﾞｲﾄﾞﾌﾞｯｸも持って行ってください。",
    "コーヒーを飲みながら、ゆっくり話しましょう。", "１２３円です。ありがとうございます！",
]  # fmt: skip
KOREAN = [
    "안녕하세요, 오늘 날씨가 정말 좋네요.", "네, 산책하기 딱 좋은 날이에요.",
    "주말에는 무엇을 하실 거예요?", "친구와 함께 맛있는 커피를 마시려고 해요.",
]  # fmt: skip
HARD = [
    "  two  spaces,\ta tab\nand a newline ", "ﬁ ½ ① Ａ ™ がぎぐ ｶﾞｷﾞｸﾞ", "e\u0301 a\u0300 한글 한",
    "3, 000 yuan, 1,234.5", "🙂 👍🏽 漢字", "``quoted'' it's", " ", "",
    "a\u200bb\u00a0c", "ÀÉ straße",
]  # fmt: skip
FORERUNNER = {
    "pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "pad_piece": "<pad>",
    "control_symbols": ["<cls>", "<sep>"], "add_dummy_prefix": False,
}  # fmt: skip
"""Arguments of train_tokenizer.py of convmodel 0.1.0."""
STATED = {
    "tokenizer_class": "BertGenerationTokenizer", "bos_token": "<s>", "eos_token": "</s>",
    "cls_token": "<cls>", "sep_token": "<sep>", "pad_token": "<pad>", "unk_token": "<unk>",
}  # fmt: skip
"""tokenizer_config.json that the script leaves."""
BYTES = {
    "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}  # fmt: skip
"""Arguments of a model like that of the first Llama."""


@cache
def texts() -> tuple[str, ...]:
    """Return the texts on which the models are trained."""
    lines = (SAMPLE_DATA / "train.jsonl").read_text(encoding="utf-8").splitlines()
    found = list[str]()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    for line in lines:
        walk(json.loads(line))
    return (*found, *JAPANESE * 5, *KOREAN * 5)


def train(**settings: Any) -> bytes:
    """Train a SentencePiece model with these arguments; the same arguments train only once."""
    return _train(json.dumps(settings))


@cache
def _train(settings: str) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    known = {"vocab_size": 900, "hard_vocab_limit": False, "minloglevel": 2, "num_threads": 1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts()), model_writer=model, **{**known, **json.loads(settings)}
    )
    return model.getvalue()


def save(
    folder: Path,
    spiece: bytes,
    stated: dict[str, Any] | None = None,
    *,
    name: str = "spiece.model",
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a tokenizer folder; ``config`` is config.json, GPT-2's by default."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(spiece)
    if stated is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(stated), encoding="utf-8")
        special = {key: value for key, value in stated.items() if key.endswith("_token")}
        (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "gpt2"}))
    return folder


def save_model(folder: Path, spiece: bytes, stated: dict[str, Any] | None = None) -> Path:
    """Write a tokenizer folder with a GPT-2 of its vocabulary."""
    import sentencepiece
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    size = sentencepiece.SentencePieceProcessor(model_proto=spiece).get_piece_size()
    GPT2LMHeadModel(
        GPT2Config(
            vocab_size=size, n_embd=32, n_layer=1, n_head=2, n_positions=128, bos_token_id=2,
            eos_token_id=3, pad_token_id=0,
        )
    ).save_pretrained(folder)  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    return save(folder, spiece, stated, config=config)
