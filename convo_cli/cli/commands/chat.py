"""The `convo chat` command."""

from __future__ import annotations

from typing import Annotated

import typer

from convo_cli.cli.options import (
    BaseOption,
    DeviceOption,
    JsonOption,
    LoadOption,
    QuietOption,
    within,
)
from convo_cli.errors import UsageError, typeable


def chat(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="An export, a run directory, a checkpoint, or a hub id. Several models answer "
            "each message one after the other.",
        ),
    ],
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
            metavar="K", callback=within(0), help="Sample among the K most likely tokens; 0: all."
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
    max_new_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", callback=within(1), help="Tokens of the longest reply."),
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
    from convo_cli.cli.streams import can_talk, require_stdin
    from convo_cli.text.bounded.client import start_bounded_process

    require_device(device)
    if system is not None and not is_text(system):
        raise UsageError("--system: not UTF-8 text", hint="set a UTF-8 locale, or convert the text")
    for model in models:
        require_model(model, load)
    require_stdin("there is nothing to answer")
    is_terminal = not as_json and can_talk()
    if len(models) > 1 and not is_terminal:
        raise UsageError(
            "several models answer only on a terminal, without --json",
            hint=f"convo chat {typeable(models[0])}",
        )
    announce(f"loading {', '.join(models)} (this takes a few seconds)", is_quiet=is_quiet)
    start_bounded_process()

    from convo_cli.chat.saved_sessions import SessionFile
    from convo_cli.chat.session import ChatSession
    from convo_cli.cli.console import stderr_console
    from convo_cli.cli.views.chatting.piped import answer_lines
    from convo_cli.cli.views.chatting.terminal import talk
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.model.open import generation_defaults, open_generator

    chosen = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
    }
    changes = {key: value for key, value in chosen.items() if value is not None}
    sessions = list[ChatSession]()
    with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
        for model in models:
            generator = open_generator(model, device=device, emit=emit, which=load, base=base)
            if max_new_tokens is not None:
                note_longest_reply(generator, max_new_tokens, emit)
            settings = generation_defaults(generator).model_copy(update=changes)
            sessions.append(ChatSession(generator, settings, system=system, seed=seed))
    if is_terminal:
        conversations = [(one, SessionFile.new(one.contract)) for one in sessions]
        talk(models, conversations, is_quiet=is_quiet)
    else:
        answer_lines(sessions[0], as_json=as_json, is_quiet=is_quiet)
