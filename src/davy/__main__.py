"""`python -m davy` is `davy`."""

from davy.cli.main import main

if __name__ == "__main__":
    main()
