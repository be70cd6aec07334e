"""The command line under the package's name, for launchers: `python -m lookhear.cli train …`."""

import sys

from lookhear_command import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
