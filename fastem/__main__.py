"""`python -m fastem` is the command `fastem`."""

import sys

from fastem.cli import main

if __name__ == "__main__":
    sys.exit(main())
