"""`python -m pullonce`: the same as the installed command."""

import sys

from pullonce.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
