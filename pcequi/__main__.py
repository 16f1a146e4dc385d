"""``python -m pcequi``: the command, where it is not on the path."""

from pcequi.cli import main

if __name__ == "__main__":
    main()
