"""Lets ``python -m convo_cli`` do what the ``convo`` command does."""

from convo_cli.cli.app import main

if __name__ == "__main__":
    main()
