"""The `convo chat` command."""

from __future__ import annotations

from typing import Annotated

import typer

from convo_cli.cli.options import DeviceOption, JsonOption, QuietOption
from convo_cli.errors import UsageError
from convo_cli.events import Notice


def chat(
    model: Annotated[
        str, typer.Argument(help="An export, a run directory, a checkpoint, or a hub id.")
    ],
    system: Annotated[
        str | None, typer.Option(help="What the model is told before the conversation.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, max=10.0, help="0 takes the likeliest token.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="Sample among the k likeliest tokens; 0: all.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="Sample within this probability.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest reply in tokens.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Makes sampled replies repeatable.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    r"""Talk to a model, on the terminal or through a pipe (one line in, one reply out).

    Example: printf 'hello\n' | convo chat exports/convo
    """
    from convo_cli.cli.arguments import is_text, require_device, require_model
    from convo_cli.cli.streams import require_stdin
    from convo_cli.text.bounded.client import start_bounded_process

    require_device(device)
    if system is not None and not is_text(system):
        raise UsageError("--system: not UTF-8 text", hint="set a UTF-8 locale, or convert the text")
    require_model(model)
    require_stdin("there is nothing to answer")
    start_bounded_process()

    from convo_cli.chat.session import ChatSession
    from convo_cli.cli.console import stderr_console
    from convo_cli.cli.views.chat_view import hold_conversation
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.model.open import generation_defaults, open_generator

    with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
        generator = open_generator(model, device=device, emit=emit)
        if max_new_tokens is not None and max_new_tokens > generator.longest_reply:
            emit(
                Notice(
                    f"replies are at most {generator.longest_reply} tokens long here, half of the "
                    "model's window"
                )
            )
    chosen = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
    }
    settings = generation_defaults(generator).model_copy(
        update={key: value for key, value in chosen.items() if value is not None}
    )
    if seed is not None:
        import torch

        torch.manual_seed(seed)
    hold_conversation(
        ChatSession(generator, settings, system=system), as_json=as_json, is_quiet=is_quiet
    )
