"""Script: opens exported folders with the transformers of its environment, which lacks convo.

It reads a request from stdin, ``{"folders": …, "texts": …, "dialogues": …}``, and writes one JSON
object with the answers by folder.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

NUM_TOKENS = 12


def answers(folder: str, texts: list[str], dialogues: list[Any]) -> dict[str, Any]:
    """Return what transformers makes of a folder: ids, prompts, greedy replies, stops, type."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    kwargs = {"dtype": "auto", "weights_only": True}
    model: Any = AutoModelForCausalLM.from_pretrained(folder, **kwargs).eval()
    prompts, replies = [], []
    for messages in dialogues:
        read = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        ids = read["input_ids"]
        prompts.append(ids)
        input_ids = torch.tensor([ids])
        with torch.inference_mode():
            output = model.generate(
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                do_sample=False,
                max_new_tokens=NUM_TOKENS,
            )
        replies.append(output[0, len(ids) :].tolist())
    return {
        "texts": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts],
        "prompts": prompts,
        "replies": replies,
        "stops": model.generation_config.eos_token_id,
        "ends": [model.config.eos_token_id, tokenizer.eos_token_id],
        "pads": tokenizer.pad_token_id,
        "type": str(model.dtype),
        "is_tied": model.get_input_embeddings().weight.data_ptr()
        == model.get_output_embeddings().weight.data_ptr(),
        "length": tokenizer.model_max_length,
    }


def main() -> None:
    sys.modules["convo_cli"] = None
    warnings.simplefilter("ignore")
    request = json.loads(sys.stdin.read())
    import transformers

    found = {
        folder: answers(folder, request["texts"], request["dialogues"])
        for folder in request["folders"]
    }
    print(json.dumps({"version": transformers.__version__, "found": found}))


if __name__ == "__main__":
    main()
