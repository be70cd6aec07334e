"""The command line as `python -m lookhear`."""

import sys

from lookhear_command import main

if __name__ == "__main__":
    sys.exit(main())
