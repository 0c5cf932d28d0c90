"""The entry point of the `convo` executable, and of ``python -m convo_cli``."""

from __future__ import annotations

import sys

from convo_cli import __version__


def main() -> None:
    """Run the command line; the version alone is answered before anything is imported."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"convo {__version__}\n")
        return
    from convo_cli.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
