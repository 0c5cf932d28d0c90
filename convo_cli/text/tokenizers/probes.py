"""Probes: 200 short texts on which tokenizers differ, such as scripts, spaces, code and emoji."""

from __future__ import annotations

_TEXTS = (
    "Hello, world!", "it's John's; don't, can't, I'll", "x", "aaaaaaaaaaaaaaaaaaaa",
    "MiXeD cAsE iPhone and ÀÉÎ", "Straße, Größe, Äpfel", "¿Qué tal? ¡Bien!", "Ça va ? L’été, cœur",
    "Zażółć gęślą jaźń", "İstanbul, ığdır",
    "Привет, как дела?", "Γειά σου Κόσμε, ς", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया",
    "สวัสดีชาวโลก", "안녕하세요, 세계", "한글", "こんにちは、世界", "カタカナ ｶﾀｶﾅ",
    "你好，世界", "繁體中文", "Xin chào thế giới", "e\u0301 n\u0303 decomposed", "ﬁ ﬂ ½ ² ™ № Ⅳ",
    "🙂 👍🏽 👨‍👩‍👧 🇰🇷", "1234567890 3.14 1,000,000 1e-5", "١٢٣ ४५६",
    "def f(x):\n    return x + 1  # ok",
    '{"key": [1, "two"]}', "https://example.org/a?b=c&d=%20#e", "<b>bold</b> &amp; <br/>",
    "[INST] <<SYS>> [SEP] [CLS] [MASK]", "<|user|>Hi<|end|>", "<|im_start|>user\nHi<|im_end|>",
    "<s></s><pad><unk><mask><0x41>", "a\u00a0b\u200bc\ufeffd\u3000e", "…—–“”‘’«»‹›",
    "!!!???...,,,;;; ( a , b ) do n't 's .", "C:\\path\\file.txt $100 €50 ∑∫√≠",
)  # fmt: skip
PROBES = tuple(
    shape
    for text in _TEXTS
    for shape in (
        text,
        f" {text}",
        f"{text}  \n\n\t{text} ",
        f"  ▁{text.upper()}",
        f"{text}{text.lower()}\r\n",
    )
)
