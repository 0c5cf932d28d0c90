"""More public model families: their chat templates in convo's own words, and the tokens of each.

tests/families.py has the families on which the laws of templates are tested with random dialogues;
those here are tested with fixed ones.
"""

from __future__ import annotations

from tests.families import Family


def _family(template: str, eos: str, *tokens: str, bos: str | None = None, **more) -> Family:
    named = (eos,) if bos is None else (bos, eos)
    return Family(
        template=template, tokens=tuple(dict.fromkeys((*named, *tokens))), eos=eos, bos=bos, **more
    )


PUBLIC = {
    "Phi-4": _family(
        "phi4", "<|im_end|>", "<|im_start|>", "<|im_sep|>", answer="{}<|im_end|>"
    ),
    "InternLM 2": _family(
        "internlm2", "</s>", "<|im_start|>", "<|im_end|>", bos="<s>", answer="{}<|im_end|>"
    ),
    "EXAONE 3.5": _family(
        "exaone", "[|endofturn|]", "[|system|]", "[|user|]", "[|assistant|]",
        answer="{}[|endofturn|]",
    ),
    "Llama 3.1, with the date": _family(
        "llama31", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>",
        bos="<|begin_of_text|>", answer="{}<|eot_id|>",
    ),
    "Llama 4": _family(
        "llama4", "<|eot|>", "<|header_start|>", "<|header_end|>", bos="<|begin_of_text|>",
        answer="{}<|eot|>",
    ),
    "Mistral v7": _family(
        "mistral-v7", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", bos="<s>",
        answer="{}</s>",
    ),
    "Mistral v3": _family(
        "mistral-tekken", "</s>", "[INST]", "[/INST]", bos="<s>", answer="{}</s>",
        is_one_by_one=True, is_alternating=True,
    ),
    "Kimi K2": _family(
        "kimi", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>",
        answer="{}<|im_end|>",
    ),
    "ERNIE 4.5": _family(
        "ernie45", "</s>", "<|end_of_sentence|>", bos="<|begin_of_sentence|>",
        answer="{}<|end_of_sentence|>",
    ),
    "Seed-OSS": _family("seed-oss", "<seed:eos>", bos="<seed:bos>", answer="{}<seed:eos>"),
    "MiniMax": _family(
        "minimax", "<end_of_sentence>", "<beginning_of_sentence>", answer="{}<end_of_sentence>"
    ),
    "Baichuan 2": _family("baichuan2", "</s>", "<reserved_106>", "<reserved_107>", bos="<s>"),
    "ChatGLM 3": _family(
        "chatglm3", "</s>", "[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>"
    ),
    "GLM-4.5": _family(
        "glm45", "<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>",
        unmarked=("<think>", "</think>", "/nothink"),
    ),
    "MiniCPM": _family("minicpm", "</s>", bos="<s>"),
    "DeepSeek Coder": _family(
        "deepseek-coder", "<|EOT|>", bos="<｜begin▁of▁sentence｜>", answer="\n{}\n<|EOT|>"
    ),
    "SOLAR": _family("solar", "</s>", bos="<s>", answer="{}</s>"),
    "Alpaca": _family("alpaca", "</s>", bos="<s>", answer="{}</s>"),
    "OpenChat 3.5": _family(
        "openchat", "<|end_of_turn|>", bos="<s>", answer=" {}<|end_of_turn|>"
    ),
    "StarChat 2": _family(
        "starchat", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
        answer="{}<|end|>",
    ),
    "StableLM Zephyr": _family("stablelm", "<|endoftext|>", answer="{}<|endoftext|>"),
    "Falcon 3": _family(
        "falcon3", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>",
        answer="{}<|endoftext|>",
    ),
    "Jamba": _family(
        "jamba", "<|eom|>", "<|bom|>", "<|system|>", "<|user|>", "<|assistant|>",
        bos="<|startoftext|>", answer=" {}<|eom|>",
    ),
    "LFM 2": _family(
        "lfm2", "<|im_end|>", "<|im_start|>", bos="<|startoftext|>", answer="{}<|im_end|>"
    ),
    "nanochat": _family(
        "nanochat", "<|assistant_end|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>",
        bos="<|bos|>", answer="{}<|assistant_end|>", has_system=False,
    ),
    "Apertus": _family(
        "apertus", "<|assistant_end|>", "<|system_start|>", "<|system_end|>", "<|developer_start|>",
        "<|developer_end|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>",
        bos="<s>", answer="{}<|assistant_end|>",
    ),
    "Hunyuan": _family(
        "hunyuan", "<|eos|>", "<|extra_0|>", "<|extra_4|>", bos="<|startoftext|>",
        answer="{}<|eos|>",
    ),
    "DialoGPT": _family("dialogpt", "<|endoftext|>", answer="{}<|endoftext|>"),
    "BlenderBot": _family("blenderbot", "</s>", bos="<s>"),
    "Orion": _family("orion", "</s>", bos="<s>", answer="{}</s>", has_system=False),
    "XVERSE": _family("xverse", "<|endoftext|>", answer="{}<|endoftext|>", has_system=False),
    "TeleChat": _family(
        "telechat", "<_end>", "<_user>", "<_bot>", "<_system>", answer="{}<_end>"
    ),
    "Pygmalion": _family(
        "metharme", "</s>", "<|system|>", "<|user|>", "<|model|>", bos="<s>", answer="{}</s>"
    ),
}  # fmt: skip
