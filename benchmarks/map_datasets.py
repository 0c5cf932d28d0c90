"""Tokenize a file of messages with `datasets.map` and print its cost, for `bench_prepare`.

    python benchmarks/map_datasets.py TOKENIZER_FOLDER train.jsonl [--batched]

Trainers call it for one row at a time; `--batched` renders a thousand rows and tokenizes their
texts at once.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
from transformers import AutoTokenizer


def main() -> None:
    """Parse the command line, map, and print one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokenizer")
    parser.add_argument("file")
    parser.add_argument("--batched", action="store_true")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    datasets.disable_progress_bars()

    def one(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "input_ids": tokenizer.apply_chat_template(
                row["messages"], tokenize=True, return_dict=False
            )
        }

    def many(rows: dict[str, list[Any]]) -> dict[str, Any]:
        texts = [
            tokenizer.apply_chat_template(messages, tokenize=False) for messages in rows["messages"]
        ]
        return {"input_ids": tokenizer(texts, add_special_tokens=False)["input_ids"]}

    with tempfile.TemporaryDirectory() as cache:
        wall, cpu = time.perf_counter(), time.process_time()
        rows = datasets.load_dataset(
            "json", data_files=arguments.file, split="train", cache_dir=cache
        )
        if arguments.batched:
            rows = rows.map(many, batched=True, remove_columns=rows.column_names)
        else:
            rows = rows.map(one, remove_columns=rows.column_names)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        num_tokens = sum(
            len(batch["input_ids"].combine_chunks().values)
            for batch in rows.with_format("arrow").iter(1000)
        )
    print(json.dumps({"wall": wall, "cpu": cpu, "num_tokens": num_tokens}), flush=True)


if __name__ == "__main__":
    main()
