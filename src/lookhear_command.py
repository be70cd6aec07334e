"""The `lookhear` command: reads the arguments before torch and transformers are imported.

`import lookhear` registers its classes with transformers, which takes seconds; help and wrong arguments should not. So
the console script loads `lookhear/cli.py` by its path, and the package only when a command has something to do.
"""

import importlib.util
import sys
from pathlib import Path


def main() -> int:
    """Runs the command line; returns its exit code."""
    package = importlib.util.find_spec("lookhear")  # finds the folder, imports nothing
    path = Path(package.submodule_search_locations[0]) / "cli.py"
    spec = importlib.util.spec_from_file_location("lookhear_cli", path)
    cli = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = cli
    spec.loader.exec_module(cli)
    return cli.main()
