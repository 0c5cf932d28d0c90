"""The entry point of the `convo` executable, and of ``python -m convo_cli``."""

from __future__ import annotations

import os
import sys
import warnings

from convo_cli import __version__


def main(*, is_module: bool = False) -> None:
    """Run the command line and end the process; `--version` is answered without importing anything.

    The working folder is removed from the import path, so that no module next to the data is
    imported. `python -m convo_cli` (``is_module``) and an empty entry in PYTHONPATH put it there.
    """
    if is_module and not getattr(sys.flags, "safe_path", False):  # since Python 3.11
        _remove_working_folder_from_path()
    if "" in os.environ.get("PYTHONPATH", "-").split(os.pathsep):
        _remove_working_folder_from_path()
    from convo_cli.cli.streams import prepare_streams

    prepare_streams()
    if not sys.warnoptions:  # libraries warn developers; convo reports what users need to know
        warnings.simplefilter("ignore")
    try:
        run()
    except SystemExit as stop:
        from convo_cli.background import end_process
        from convo_cli.world import seat_in

        end_process(stop.code, is_one_of_many=seat_in() is not None)


def run() -> None:
    """Run the command line and return; SystemExit if the exit code is not 0."""
    if sys.argv[1:] == ["--version"]:
        from convo_cli.cli.streams import stdout_errors

        with stdout_errors():
            sys.stdout.write(f"convo {__version__}\n")
        return
    try:
        from convo_cli.cli.app import main as run_app

        run_app()
    except KeyboardInterrupt:  # before typer can handle it
        sys.exit(130)


def _remove_working_folder_from_path() -> None:
    # Without pathlib, which is not loaded yet and could be imported from that folder.
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    try:
        here = os.getcwd()
    except FileNotFoundError:  # deleted
        return
    if here != home and here in sys.path:
        sys.path.remove(here)


if __name__ == "__main__":
    main(is_module=True)
