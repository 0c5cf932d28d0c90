"""Suggestions for command lines that typer refuses: a command, an option or a config key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from convo_cli.errors import UsageError, typeable

_OTHER_COMMANDS = {
    "import": "import-data convert-data ingest",
    "init-config": "init new create config configure setup preset",
    "validate-data": "validate check lint inspect data preview dataset",
    "train": "run start fit finetune fine-tune sft pretrain",
    "resume": "continue restart restore",
    "evaluate": "eval test score benchmark",
    "export": "save convert merge publish",
    "chat": "talk generate predict infer inference interact sample",
}
"""Names that other programs give to the commands."""
_COMMANDS = {
    other: name for name, others in _OTHER_COMMANDS.items() for other in (name, *others.split())
}
_NO_NUMBER = re.compile(
    r"(?:Input should be a valid|Unable to parse input string as an) (integer|number)\b[^\n]*"
)
_NUMBERS = {"integer": "give a whole number, such as 100", "number": "give a number, such as 0.5"}
_CUTOFF = 0.7
"""Minimum similarity of a suggestion."""


def refusal(error: Exception, arguments: Sequence[str]) -> UsageError:
    """Return typer's refusal of the command line as an error with a suggestion."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "convo"
    # pydantic's prefix in typer 0.29
    message = str(getattr(error, "message", "")).replace("Value error, ", "")
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        return _unknown_option(option, message, context)
    if message.startswith("No such command"):
        word = next((at, word) for at, word in enumerate(arguments) if not word.startswith("-"))
        return _unknown_command(word[1], arguments[word[0] + 1 :])
    formatted: str = error.format_message()  # type: ignore[attr-defined]  # of a TyperException
    # pydantic's words for what is no number
    formatted = _NO_NUMBER.sub(lambda found: _NUMBERS[found[1]], formatted)
    return UsageError(formatted.replace("Value error, ", ""), hint=f"{command} --help")


def _unknown_command(word: str, others: Sequence[str]) -> UsageError:
    message = f"No such command '{word}'."
    if word == "help":
        topic = _COMMANDS.get(others[0]) if others else None
        return UsageError(message, hint=f"convo {topic} --help" if topic else "convo --help")
    if word == "version":
        return UsageError(message, hint="convo --version")
    if command := _for_path(word):
        return UsageError(message, hint=command)
    if close := difflib.get_close_matches(word.lower(), _COMMANDS, n=1, cutoff=_CUTOFF):
        name = _COMMANDS[close[0]]
        return UsageError(f"{message} Did you mean '{name}'?", hint=f"convo {name} --help")
    return UsageError(message, hint="convo --help")


def _for_path(word: str) -> str | None:
    """Return the command for a path that was given instead of a command."""
    from convo_cli.cli.given_paths import is_data_file, is_model, new_config_command

    path = Path(word)
    try:
        if path.suffix in (".yaml", ".yml"):
            return f"convo train {typeable(path)}"
        if is_data_file(path):
            return new_config_command(path)
        return f"convo chat {typeable(path)}" if word and is_model(path) else None
    except OSError:  # too long for a path, or unreadable
        return None


def _unknown_option(option: str, message: str, context: Any) -> UsageError:
    command = context.command_path if context else "convo"
    options = {
        name.lstrip("-"): name
        for param in (context.command.get_params(context) if context else ())
        for name in param.opts
        if name.startswith("--")
    }
    name = option.lstrip("-").partition("=")[0].lower()
    if name == "v" and "version" in options:
        return UsageError(f"{message}. Did you mean --version?", hint="convo --version")
    if name in _COMMANDS and command == "convo":
        return UsageError(message, hint=f"convo {_COMMANDS[name]} --help")
    if "set" in options and (keys := _config_keys(name)):
        pairs = " or ".join(f"--set {key}=VALUE" for key in keys)
        return UsageError(f"{message}; it is a config key", hint=pairs)
    if close := difflib.get_close_matches(name, options, n=1, cutoff=_CUTOFF):
        return UsageError(f"{message}. Did you mean {options[close[0]]}?", hint=f"{command} --help")
    if name in _COMMANDS.values():
        message = f"{message}; {name} is a separate command"
        return UsageError(message, hint=f"convo {name} --help")
    return UsageError(message, hint=f"{command} --help")


def _config_keys(name: str) -> list[str]:
    """Return the config keys of this name, or of this name in other trainers; at most two."""
    from convo_cli.config.keys import config_keys
    from convo_cli.config.synonyms import SYNONYMS

    plain = name.replace("-", "_")
    keys = [key for key in config_keys().values() if not key.is_section]
    found = [key.path for key in keys if plain in (key.path, key.name)]
    return found[:2] or [SYNONYMS[plain]] if found or plain in SYNONYMS else []
