"""``python -m certimed``: the same as the ``certimed`` command."""

from certimed.cli.app import main

if __name__ == "__main__":
    main()
