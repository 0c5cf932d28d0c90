"""Script that opens the tokenizer of an exported folder, in a process without convo.

Native code reads a SentencePiece model, which may be foreign. The process has no network.
`convo_cli.export.folders.plain_receipt` starts it and sends one line of JSON; the answer is one
line too.
"""

from __future__ import annotations

import json
import os
import sys
from threading import Thread
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Return the ids of texts, without special tokens around them."""
    from transformers import AutoTokenizer

    _limit_memory(request["memory_bytes"])
    tokenizer: Any = AutoTokenizer.from_pretrained(request["folder"], trust_remote_code=False)
    texts = request["texts"]
    return {"texts": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]}


def main() -> None:
    """Read the request from stdin, and write the answer, or the error, to stdout."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # a library that prints must not touch the answer
    sys.addaudithook(_refuse_network)
    request = json.loads(sys.stdin.buffer.readline())
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = answer(request)
    except Exception as error:  # noqa: BLE001  (transformers raises many types)
        found = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(found) + "\n")
    answers.flush()
    os._exit(0)


def _end_with_parent() -> None:
    """End this process when stdin ends, which its parent keeps open."""
    sys.stdin.buffer.read()
    os._exit(1)


def _refuse_network(event: str, _: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise OSError("the receipt of an export has no network")


def _limit_memory(num_bytes: int) -> None:
    """Limit the memory of this process to what it uses now and ``num_bytes`` more, on Linux."""
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[0])
        limit = pages * resource.getpagesize() + num_bytes
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


if __name__ == "__main__":
    main()
