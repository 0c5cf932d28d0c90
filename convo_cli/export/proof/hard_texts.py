"""Hard texts: 600 texts of convo's own on which tokenizers differ.

They hold no character that a dialogue cannot hold: no NUL and no half of a surrogate pair.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

from convo_cli.text.tokenizers.probes import PROBES

NUM_HARD_TEXTS = 600
_SCRIPTS = (
    "The quick brown fox", "Příliš žluťoučký kůň", "Đặc biệt, tiếng Việt", "Þórður á Íslandi",
    "ƙasa ɓera ɗaya ŋ ɔ ɛ", "Съешь же ещё мягких", "Їжак і ґава", "Ђорђе и Љиљана", "Қазақ әліпбиі",
    "Ξεσκεπάζω την ψυχή", "ἄνθρωπος ὁ λόγος", "Հայոց լեզու", "ქართული ენა", "עִבְרִית קַלָּה",
    "اللغة العربية الجميلة", "فارسی می‌خواهم", "اردو زبان ہے", "हिन्दी में क्षत्रिय", "বাংলা ভাষা",
    "ਪੰਜਾਬੀ ਬੋਲੀ", "ગુજરાતી ભાષા", "தமிழ் மொழி", "తెలుగు భాష", "ಕನ್ನಡ ನುಡಿ", "മലയാളം ലിപി",
    "සිංහල භාෂාව", "ภาษาไทยน้ำใจ", "ພາສາລາວ", "မြန်မာဘာသာ", "ភាសាខ្មែរ", "བོད་སྐད།", "አማርኛ ቋንቋ",
    "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "ᠮᠣᠩᠭᠣᠯ ᠬᠡᠯᠡ", "汉字和標點，。", "日本語の漢字とかな", "ﾊﾝｶｸ カナ ヷ",
    "한국어 띄어쓰기", "ㄱㄴㄷ ㅏㅑ", "ㄅㄆㄇ 注音", "ⵜⴰⵎⴰⵣⵉⵖⵜ", "ߒߞߏ ߞߊ߲", "ދިވެހި ބަސް", "ܠܫܢܐ ܣܘܪܝܝܐ",
    "𐌲𐌿𐍄𐌹𐍃𐌺", "𝕄𝕒𝕥𝕙 𝛼𝛽 𝟘𝟙", "𠀀𠮷 𪚥", "Ⲙⲉⲧⲣⲉⲙ", "ꦧꦱꦗꦮ", "Ꮳꮳ ꭰ",
)  # fmt: skip
_EMOJI = (
    "🙂", "👍🏽", "👩🏿‍🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🏴‍☠️", "🇩🇪🇫🇷🇯🇵", "🇩🇪 🇫🇷", "🇩", "❤️", "❤", "☺︎", "1️⃣#️⃣*️⃣",
    "🧑🏻‍❤️‍💋‍🧑🏿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🫠🫡", "😀😃😄😁", "ok👌ok", "👍👍🏻👍🏼👍🏽👍🏾👍🏿",
    "🐱‍💻", "©️®️™️", "‍", "️", "🏻",
)  # fmt: skip
_SPACES = " \t\u00a0\u1680\u2000\u2003\u2007\u2009\u200a\u202f\u205f\u3000\u200b\u200c\u2060\ufeff"
_LINES = (
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "\n \n",
    "\t\n",
    "\n\n\n\n",
    "\u2028",
    "\u2029",
    "\x85",
    "\v",
    "\f",
)
_RARE = (
    0x01, 0x07, 0x1B, 0x7F, 0x80, 0x9F, 0xAD, 0x378, 0x61C, 0x200E, 0x200F, 0x202E, 0x2066, 0x2069,
    0x2C2F, 0xD7FF, 0xE000, 0xF8FF, 0xFDD0, 0xFE00, 0xFE0F, 0xFFF9, 0xFFFC, 0xFFFD, 0xFFFE, 0xFFFF,
    0x10000, 0x1F1E6, 0x1FFFE, 0x2FFFF, 0x30000, 0xE0001, 0xE0100, 0xF0000, 0x10FFFD, 0x10FFFF,
)  # fmt: skip
"""Controls, directions, unassigned and private characters, and the ends of planes."""
_MARKS = (
    "\u0301", "\u0308\u0301", "\u0323\u0302", "\u0336", "\u20dd", "\u0489", "\u3099", "\u05b0",
    "\u064b\u0651", "\u093c", "\u0e49", "\u1160",
)  # fmt: skip
_CODE = (
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }", "if x == 1:\n\treturn None\n", "a->b::c<d>();",
    "SELECT * FROM t WHERE a = 'it''s';", "#include <stdio.h>\n\nint main() {}\n", "x=y=>z??w?.v",
    "print(f\"{x!r:>{width}}\")", "\\begin{align}\n  E &= mc^2 \\\\\n\\end{align}", "```py\nx\n```",
    "<div class=\"a b\">&nbsp;</div>", "{{ user }} {% if x %}y{% endif %}", "${HOME}/bin:$PATH",
    "^[a-z]+\\d{2,}$|\\s*", "0xDEADBEEF 0b1010 0o17 1_000", "/* c */ // d # e -- f", "a&&b||!c",
    "kebab-case snake_case camelCase PascalCase SCREAMING_CASE", "__init__ __ _ ___x___",
    "        return  self.x\n    \n", "| a | b |\n|---|---|\n| 1 | 2 |", "- [ ] todo\n- [x] done",
    "@@ -1,2 +1,2 @@\n-old\n+new", "user@example.org", "\"\\u00e9\\n\\t\\\\\"", "a\tb\t\tc\t\t\td",
)  # fmt: skip
_ADDRESSES = (
    "https://user:pw@example.org:8080/p/a/t/h?query=string&x[]=1#frag", "http://[::1]/", "ftp://a.b",
    "www.example.com/%E4%BD%A0?q=%F0%9F%99%82", "mailto:a.b+c@d.example", "//cdn.example.org/x.js",
    "192.168.0.1:22", "2001:db8::ff00:42:8329", "C:\\Users\\x\\y.txt", "~/a/./../b", "x.tar.gz",
    "2024-02-29T23:59:60.000+05:30", "+1 (555) 010-9999", "#hashtag @mention", "a/b/c//d///e",
)  # fmt: skip
_CONTRACTIONS = (
    "I'm you're he's we've they'd she'll", "I'M YOU'RE HE'S WE'VE THEY'D", "don’t can’t it’s",
    "'s 't 're 've 'm 'll 'd", "' s ' t", "y'all'd've o'clock rock'n'roll 'tis", "'S'T'RE'VE'M'D",
    "l'été d'abord qu'il aujourd'hui", "''' '''' \"'\"", "x's'x 1's's", "dogs' cats'", "ſ'ſ 'ſ",
)  # fmt: skip
_ZEROS = "٠०০๐０𝟎"
_COMPOSED = "ﬁancé Å ﷺ 각 ½ ế が Ω Ⅷ"
_WORDS = (
    "a" * 300, "Donaudampfschifffahrtsgesellschaftskapitän" * 3, "ha" * 100, "x" * 33 + "y" * 33,
    "supercalifragilisticexpialidocious", "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 4, "=" * 80, "-" * 81,
    "." * 100, "!?" * 40, "的" * 120, "ㅋ" * 60, "가나다라마바사" * 12, "ไ" * 64, "é" * 65,
    "e\u0301" * 65, "🙂" * 40, "aA1!" * 40, "_" * 64, "▁" * 17, "Ġ" * 9, "Ċ ĉ Ġa ▁a ##a a@@ </w>",
    "0" * 128,
)  # fmt: skip


_DIGITS = "31415926535897932384"
_FIXED: Mapping[str, Sequence[str]] = {
    "probes": PROBES,
    "scripts": [one for text in _SCRIPTS for one in (text, f" {text.swapcase()}{text[:3]}")],
    "combining marks": [
        *(f"{base}{mark}x{mark}{mark}" for mark, base in product(_MARKS, ("e", " "))),
        *(unicodedata.normalize(form, _COMPOSED) for form in ("NFC", "NFD", "NFKC", "NFKD")),
    ],
    "emoji": [f"{text} b{text}" for text in _EMOJI],
    "spaces": [
        *(one for space in _SPACES for one in (f"{space}a{space}b{space}", f"a{space * 3}b")),
        *(" " * number for number in (1, 2, 3, 7, 16, 63)),
        *(f"a{' ' * number}b" for number in (2, 4, 5, 8, 31)),
    ],
    "lines": [one for end in _LINES for one in (f"a{end}b{end}", f"{end} c")],
    "numbers": [
        *(_DIGITS[:number] for number in range(1, 21)),
        *("x" + "".join(chr(ord(zero) + int(digit)) for digit in _DIGITS[:7]) for zero in _ZEROS),
        "1.5e-07", "-0.00", "1 000 000,5", "½⅓²₃①Ⅻ", "3rd 2nd",
    ],
    "long words": _WORDS,
    "code": _CODE,
    "addresses": _ADDRESSES,
    "contractions": _CONTRACTIONS,
    "rare characters": [f"a{chr(code)}b {chr(code)}" for code in _RARE],
}  # fmt: skip


class HardText(NamedTuple):
    """A text, and the kind of difficulty for which it is here."""

    group: str
    text: str


@cache
def hard_texts() -> tuple[HardText, ...]:
    """Return 600 different texts, always the same ones."""
    texts = dict[str, HardText]()
    for text in _constructed():
        if len(texts) == NUM_HARD_TEXTS:
            break
        texts.setdefault(text.text, text)
    return tuple(texts.values())


def _constructed() -> Iterator[HardText]:
    for group, texts in _FIXED.items():
        yield from (HardText(group, text) for text in texts)
    source = random.Random(0)
    pools = (_SCRIPTS, _EMOJI, _SPACES, _LINES, _CODE, _ADDRESSES, _CONTRACTIONS, _MARKS, _DIGITS)
    while True:
        parts = [source.choice(source.choice(pools)) for _ in range(source.randint(2, 6))]
        yield HardText("mixed", "".join(parts))
