"""A GGUF file, opened by llama.cpp's own server in this process.

Its tokenizer and its Jinja engine are reachable over HTTP only. So the server listens on a loopback
port of the system's choice, and answers no request without a random key.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from convo_cli.cpus import num_cpus
from convo_cli.errors import CheckpointError
from convo_cli.runs.model_folder import DIALOGUE_FILE

_FORCED = 10_000.0
"""Added to a logit, it makes its token the most likely one, whatever the model computes."""
_PLAIN = {
    "temperature": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "dry_multiplier": 0.0,
    "mirostat": 0,
    "ignore_eos": False,
    "samplers": ["temperature"],
    "cache_prompt": True,
    "return_tokens": True,
    "response_fields": ["tokens", "completion_probabilities"],
}
"""Settings that leave plain argmax, whatever sampling the metadata of the file state."""
_MAX_SHOWN = 500  # characters of an error
_EXTRA = 8  # positions beyond a dialogue, so that no reply ends because the window is full
_LISTS = (512, 2**31 - 1)  # lengths of lists of likely tokens; the second is the vocabulary


def open_llama(folder: Path) -> LlamaRuntime:
    """Open the GGUF file of an export, for dialogues of the length that its dialogue.json states.

    Raises CheckpointError for a folder without them, or a file that llama.cpp does not load.
    """
    files = sorted(folder.glob("*.gguf"))
    try:
        (file,) = files
        max_length = int(json.loads((folder / DIALOGUE_FILE).read_bytes())["max_length"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{folder}: no export of convo, which has one .gguf file and {DIALOGUE_FILE}",
            hint="export it again",
        ) from error
    return LlamaRuntime(file, max_length)


class LlamaRuntime:
    """One model in one slot of llama.cpp's server, which computes attention in fp32.

    By default llama.cpp keeps keys and values in fp16, so replies of an exact file are rounded too.
    """

    name = "llama.cpp"

    def __init__(self, file: Path, max_length: int) -> None:
        import xllamacpp

        self.version = f"xllamacpp {xllamacpp.__version__}"
        self._key = secrets.token_urlsafe(32)
        params: Any = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx = max_length + _EXTRA
        params.n_parallel = 1
        # Its threads wait in a busy loop: one too many on a busy machine costs a factor of ten.
        params.cpuparams.n_threads = max(1, num_cpus() // 2)
        params.cpuparams_batch.n_threads = params.cpuparams.n_threads
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        # Flash attention on a CPU rounds to fp16: 3.8e-3 nats in a target instead of 1.8e-4.
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_ram_mib = 0  # of other prompts; its default is 8 GiB
        params.fit_params = params.warmup = params.ctx_shift = False
        params.prefill_assistant = False  # a last assistant turn is a turn, not the reply's start
        params.use_jinja = True
        params.hostnames, params.port = ["127.0.0.1"], 0
        params.api_keys = [self._key]
        params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
        params.n_threads_http = 1
        params.verbosity = -1
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as error:
            raise CheckpointError(f"{file.name}: llama.cpp cannot load it ({error})") from error
        self._port = urlsplit(self._server.listening_address).port
        self._letter = self.text_ids("a")[-1]

    @property
    def stop_ids(self) -> list[int]:
        """Return all ids that end a reply: those of the file, and tokens with a known text.

        The server forbids them in a reply that must not end, and lists what it forbids.
        """
        fields = ["generation_settings/logit_bias"]
        request = {"prompt": [self._letter], "n_predict": 1, "ignore_eos": True}
        answer = self._post("/completion", {**request, "response_fields": fields})
        return [int(one["token"]) for one in answer[fields[0]]]

    def text_ids(self, text: str) -> list[int]:
        return self._tokenize(text, add_special=False, parse_special=False)

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        answer = self._post("/apply-template", {"messages": [dict(one) for one in messages]})
        # llama.cpp removes a leading token from the prompt that its tokenizer adds.
        return self._tokenize(answer["prompt"], add_special=True, parse_special=True)

    def greedy(self, ids: Sequence[int], num_tokens: int) -> list[int]:
        return list(self._complete(ids, num_tokens)["tokens"]) if num_tokens > 0 else []

    def nll(self, ids: Sequence[int], start: int) -> list[float]:
        return [self._nll(ids[:end], ids[end]) for end in range(start, len(ids))]

    def _nll(self, ids: Sequence[int], target: int) -> float:
        forced = self._probabilities(ids, target, 1)
        if forced is not None:
            return -float(forced["logprob"])
        # The server withholds a token that ends within a character. A letter is never withheld.
        for length in _LISTS:
            letter = self._probabilities(ids, self._letter, length)
            assert letter is not None, "a whole character is not withheld"
            for one in letter["top_logprobs"]:
                if one["id"] == target:
                    return -float(one["logprob"])
        raise RuntimeError(f"llama.cpp does not list token {target}")

    def _probabilities(
        self, ids: Sequence[int], forced: int, num_listed: int
    ) -> dict[str, Any] | None:
        """Return what the server says of a token after a prompt, by the model's own logits."""
        answer = self._complete(ids, 1, n_probs=num_listed, logit_bias=[[forced, _FORCED]])
        said: list[dict[str, Any]] = answer.get("completion_probabilities") or []
        return said[0] if said else None

    def _complete(self, ids: Sequence[int], num_tokens: int, **more: object) -> dict[str, Any]:
        request = {**_PLAIN, "prompt": list(ids), "n_predict": num_tokens, **more}
        return self._post("/completion", request)

    def _tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        request = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return [int(token) for token in self._post("/tokenize", request)["tokens"]]

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        with closing(HTTPConnection("127.0.0.1", self._port)) as connection:
            connection.request("POST", path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            answer = response.read()
        if response.status != 200:
            shown = answer.decode(errors="replace")[:_MAX_SHOWN]
            raise RuntimeError(f"llama.cpp answers {path} with {response.status}: {shown}")
        return dict(json.loads(answer))
