"""The entry point of the `convo` executable, and of ``python -m convo_cli``."""

from __future__ import annotations

import os
import sys

from convo_cli import __version__


def main(*, is_module: bool = False) -> None:
    """Run the command line; the version alone is answered before anything is imported.

    A module that lies in the working folder, beside the data, is never imported: ``is_module`` says that
    ``python -m convo_cli`` put the folder on the path, as an empty part of PYTHONPATH does.
    """
    if is_module and not getattr(sys.flags, "safe_path", False):  # since Python 3.11
        _leave_out_working_folder()
    if "" in os.environ.get("PYTHONPATH", "-").split(os.pathsep):
        _leave_out_working_folder()
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"convo {__version__}\n")
        return
    try:
        from convo_cli.cli.app import main as run

        run()
    except KeyboardInterrupt:  # before typer is there to notice
        sys.exit(130)


def _leave_out_working_folder() -> None:
    # Not pathlib, which is not loaded yet and could come from that folder.
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    try:
        here = os.getcwd()
    except FileNotFoundError:  # deleted
        return
    if here != home and here in sys.path:
        sys.path.remove(here)


if __name__ == "__main__":
    main(is_module=True)
