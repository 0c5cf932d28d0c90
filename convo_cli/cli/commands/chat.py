"""The `convo chat` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from convo_cli.cli.options import (
    BaseOption,
    DeviceOption,
    JsonOption,
    LoadOption,
    QuietOption,
    within,
)
from convo_cli.errors import DataError, UsageError, typeable
from convo_cli.events import Notice
from convo_cli.wording import counted

if TYPE_CHECKING:
    from convo_cli.chat.saved_sessions import SessionFile
    from convo_cli.chat.session import ChatSession
    from convo_cli.events import Emit
    from convo_cli.model.decoding.generator import Generator

_MAX_MODELS = 2


def chat(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="An export, a run directory, a checkpoint, or a hub id. Two models answer each "
            "message one after the other.",
        ),
    ],
    is_continued: Annotated[
        bool,
        typer.Option("--continue", help="Continue the last saved session with this model."),
    ] = False,
    load: LoadOption = None,
    base: BaseOption = None,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Instructions that come before the conversation."),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            callback=within(0, 10),
            help="0 to 10. Higher is more varied; 0 always picks the most likely token.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            callback=within(0, 1_000_000),
            help="Sample among the K most likely tokens; 0: all.",
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            callback=within(0.01, 1),
            help="0.01 to 1. Sample among the most likely tokens with a total probability of P.",
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            callback=within(0, 0.99),
            help="0 to 0.99. Sample among tokens with at least this share of the probability of "
            "the most likely one; 0: all.",
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            callback=within(1, 10),
            help="1 to 10. Above 1, tokens that were already used become less likely; 1: off.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", callback=within(1, 2**20), help="Tokens of the longest reply."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", callback=within(0, 2**63 - 1), help="Makes sampled replies repeatable."
        ),
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    r"""Talk to a model, on the terminal or through a pipe (one reply for each line).

    Example: printf 'hello\n' | convo chat exports/convo
    """
    from convo_cli.cli.arguments import is_text, note_longest_reply, require_device
    from convo_cli.cli.console import announce
    from convo_cli.cli.given_paths import require_model
    from convo_cli.cli.streams import is_interactive, require_stdin
    from convo_cli.text.bounded.client import start_bounded_process

    require_device(device)
    if system is not None and not is_text(system):
        raise UsageError("--system: not UTF-8 text", hint="set a UTF-8 locale, or convert the text")
    if len(models) > _MAX_MODELS:
        raise UsageError(
            f"a chat has at most {_MAX_MODELS} models, not {len(models)}",
            hint=f"convo chat {' '.join(map(typeable, models[:_MAX_MODELS]))}",
        )
    if is_continued and len(models) > 1:
        raise UsageError(
            "--continue: a session belongs to one model, and there are two",
            hint=f"convo chat {typeable(models[0])} --continue",
        )
    for model in models:
        require_model(model, load)
    require_stdin("there is nothing to answer")
    is_terminal = not as_json and is_interactive()
    announce(f"loading {', '.join(models)} (this takes a few seconds)", is_quiet=is_quiet)
    start_bounded_process()

    from convo_cli.cli.console import stderr_console
    from convo_cli.cli.views.chatting.piped import answer_lines
    from convo_cli.cli.views.chatting.terminal import talk
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.model.open import open_generator

    chosen = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "max_new_tokens": max_new_tokens,
    }
    changes = {key: value for key, value in chosen.items() if value is not None}
    conversations = []
    with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
        for model in models:
            generator = open_generator(model, device=device, emit=emit, which=load, base=base)
            if max_new_tokens is not None:
                note_longest_reply(generator, max_new_tokens, emit)
            session, file = _conversation(
                generator, emit, is_continued=is_continued, is_held=is_terminal
            )
            session.settings = session.settings.model_copy(update=changes)
            session.seed = seed
            if system is not None:
                session.set_system(system)
            conversations.append((session, file))
    if is_terminal:
        talk(models, conversations, is_quiet=is_quiet)
        return
    sessions = [session for session, _ in conversations]
    if not answer_lines(models, sessions, as_json=as_json, is_quiet=is_quiet):
        raise typer.Exit(DataError.exit_code)


def _conversation(
    generator: Generator, emit: Emit, *, is_continued: bool, is_held: bool
) -> tuple[ChatSession, SessionFile]:
    """Begin a conversation, or continue the last saved one; ``is_held``: it will be saved."""
    from convo_cli.chat.saved_sessions import SessionFile, newest_for, reopen
    from convo_cli.chat.session import ChatSession
    from convo_cli.model.open import generation_defaults

    session = ChatSession(generator, generation_defaults(generator))
    if not is_continued:
        return session, SessionFile.new(session.contract) if is_held else SessionFile(None)
    session, file, note = reopen(newest_for(session.contract), generator, is_held=is_held)
    num_exchanges = counted(len(session.exchanges), "exchange")
    emit(Notice(f"continuing the last session with this model ({num_exchanges})"))
    if note is not None:
        emit(Notice(note))
    return session, file
