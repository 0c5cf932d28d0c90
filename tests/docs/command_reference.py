"""docs/commands.md, made from the help of the commands.

`python -m tests.docs.command_reference docs/commands.md` writes it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.core import TyperArgument

from convo_cli.cli.app import app

WIDTH = 100
_INTRODUCTION = """# Commands

Every command with its arguments and options, generated from `convo COMMAND --help` by `make docs`.

- The result goes to stdout. Progress, notices and errors go to stderr.
- `--json` prints one object on stdout instead of text: [json.md](json.md).
- `--quiet` leaves results, warnings and errors.
- `NO_COLOR=1` turns colours off. In a pipe and in a log, lines are plain.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a bug in convo: it shows a traceback |
| 2 | arguments, config, a missing file, a model, a package, a device, or too little memory |
| 3 | the data cannot be trained on; `validate-data` found errors |
| 4 | a loss or gradient is no longer finite |
| 5 | a checkpoint or run directory is missing, damaged, in use or from another run |
| 6 | the data, the base model or the config changed since the run began |
| 7 | disk: no space, no permission, read-only |
| 129, 130, 138, 143 | stopped by SIGHUP, SIGINT (Ctrl-C), SIGUSR1, SIGTERM; a run is saved |
| 137 | a process of a run on several devices was killed or did not answer; resume the run |
| 141 | the reader of stdout is gone, as in `convo … \\| head` |"""

EXAMPLES = {
    "import": """\
convo import chat.zip --assistant Ada -o data.jsonl
convo import result.json --assistant Ada --pause 2h -o data.jsonl
convo import slack-export/ --assistant helper --keep-names -o data.jsonl""",
    "init-config": """\
convo init-config > config.yaml
convo init-config --train my.jsonl --validation my_valid.jsonl -o config.yaml
convo init-config --preset chat-model --train my.jsonl -o config.yaml
convo init-config --from old.yaml -o config.yaml
convo init-config --list-presets
convo init-config --schema -o convo.schema.json""",
    "validate-data": """\
convo validate-data train.jsonl valid.jsonl
convo validate-data --config config.yaml --show-tokens 2
convo validate-data my.jsonl --fix fixed.jsonl
convo validate-data - < train.jsonl
convo validate-data train.jsonl --tokenizer models/gpt2""",
    "train": """\
convo train config.yaml
convo train config.yaml --dry-run
convo train config.yaml --set training.max_steps=500 --set name=short""",
    "resume": """\
convo resume runs/convo
convo resume runs/convo --set training.max_steps=1000
convo resume runs/convo --load loss --set name=from-best
convo resume runs/convo --verify""",
    "evaluate": """\
convo evaluate runs/convo test.jsonl
convo evaluate runs/convo exports/old test.jsonl --replies all
convo evaluate exports/convo test.jsonl --replies 0 --json
convo evaluate runs/convo --load last""",
    "report": """\
convo report runs/convo
convo report runs/convo -o convo.html
convo report runs/convo runs/short -o comparison.html""",
    "export": """\
convo export runs/convo exports/convo
convo export runs/convo/checkpoints/step-00000300 exports/step-300
convo export runs/convo exports/old --format legacy""",
    "chat": """\
convo chat runs/convo
convo chat exports/convo --system "Answer in one sentence." --temperature 0
printf 'Hello!\\n' | convo chat exports/convo""",
    "serve": """\
convo serve exports/convo
convo serve runs/convo exports/convo --port 8080
convo serve exports/convo --host 0.0.0.0 --api-key-file key.txt --allow-host chat.example.org""",
}
"""Command lines for each command; the docs tests parse all of them."""


def commands_page() -> str:
    """Return docs/commands.md."""
    group: Any = typer.main.get_command(app)
    parts = [_INTRODUCTION]
    for name, command in group.commands.items():
        parts.extend(_section(name, command))
    return "\n\n".join(parts) + "\n"


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"## convo {name}"
    for paragraph in command.help.split("\n\n"):
        if not paragraph.startswith("Example:"):
            yield textwrap.fill(_escaped(paragraph.replace("\b", "").strip()), WIDTH)
    yield f"```sh\n{EXAMPLES[name]}\n```"
    arguments = [param for param in command.params if isinstance(param, TyperArgument)]
    if arguments:
        rows = [(_argument(param), _escaped(param.help)) for param in arguments]
        yield _table(("argument", "meaning"), rows)
    options = [param for param in command.params if not isinstance(param, TyperArgument)]
    yield _table(
        ("option", "value", "meaning"),
        [(_names(param), _value(param), _meaning(param)) for param in options],
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("| --- ", "|---")


def _argument(param: Any) -> str:
    name = (param.metavar or param.name.upper()).rstrip(".") + ("…" if param.nargs == -1 else "")
    return f"`{name}`" if param.required else f"`[{name}]`"


def _names(param: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(param.opts, key=len, reverse=True))


def _value(param: Any) -> str:
    """Return what an option takes: its choices, or a name; empty for a flag."""
    form = param.type_descriptor
    if _is_flag(param):
        return ""
    if form.is_choice:
        return ", ".join(f"`{choice}`" for choice in form.choices)
    number = {"int": "N", "float": "X"}.get(param.bare_type(), "TEXT")
    return f"`{param.metavar or ('PATH' if form.is_path else number)}`"


def _meaning(param: Any) -> str:
    text = _escaped(param.help)
    if _is_flag(param) or param.default in (None, "", (), []):
        return text
    return f"{text} Default: `{param.default}`."


def _is_flag(param: Any) -> bool:
    return bool(param.type_descriptor.annotation is bool)


def _escaped(text: str) -> str:
    return re.sub(r"([<|])", r"\\\1", text)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(commands_page(), encoding="utf-8", newline="\n")
