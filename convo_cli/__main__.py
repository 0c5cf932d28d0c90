"""The entry point of the `convo` executable, and of ``python -m convo_cli``."""

from __future__ import annotations

import sys

from convo_cli import __version__


def main() -> None:
    """Run the command line; the version alone is answered before anything is imported."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"convo {__version__}\n")
        return
    try:
        from convo_cli.cli.app import main as run

        run()
    except KeyboardInterrupt:  # before typer is there to notice
        sys.exit(130)


if __name__ == "__main__":
    main()
