"""What MkDocs does beside its plugins when it builds these pages.

- A line `{{ help: transcribe }}` becomes what `lookhear transcribe --help` prints, so that it cannot fall out of date.
- [`NAME`] in a docstring, as transformers writes references, becomes a link where NAME is public, and else plain code.
- A type as transformers writes it, "(`int`, *optional*)", loses its marks, which would be shown as they are.
"""

import ast
import contextlib
import functools
import io
import os
import re
from pathlib import Path

from lookhear_command import main

SOURCE = Path(__file__).parents[1] / "src" / "lookhear"
SYSTEMS = ("avsr", "glee", "lisa_glee")
PACKAGES = (
    *(f"{folder}.{system}" for folder in ("modeling", "processing") for system in SYSTEMS),
    *("evaluation", "publishing"),
)
HELP = re.compile(r"^\{\{ help:(.*)\}\}$", re.MULTILINE)
TYPE = re.compile(r"<code>(`[^<]*)</code>")
REFERENCE = re.compile(r"\[<code>~?([\w.]+)</code>\](?![\[(])")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Puts the help of commands into a page.

    Args:
        markdown: the page's source.

    Returns:
        The source with a block of text for each `{{ help: COMMAND }}`.
    """
    return HELP.sub(lambda match: f"```text\n{command_help(match[1].split())}```", markdown)


def on_page_content(html: str, **_: object) -> str:
    """Turns transformers' marks in docstrings into links, which the plugin `autorefs` resolves, and plain types.

    Args:
        html: the page's content.

    Returns:
        The content with a reference for each public name.
    """
    html = TYPE.sub(lambda match: f"<code>{re.sub('[`*]', '', match[1])}</code>", html)
    return REFERENCE.sub(lambda match: reference(match[1]), html)


def command_help(words: list[str]) -> str:
    """Returns the help of a command.

    Args:
        words: the command, without `lookhear`; empty for that of `lookhear` itself.
    """
    os.environ["COLUMNS"] = "98"  # argparse wraps at the terminal's width
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()


def reference(name: str) -> str:
    """Returns HTML that links to a public name of lookhear, or shows it as code."""
    for package in PACKAGES:
        if name.split(".")[0] in public_names(package):
            return f'<autoref optional identifier="lookhear.{package}.{name}"><code>{name}</code></autoref>'
    return f"<code>{name}</code>"


@functools.cache
def public_names(package: str) -> list[str]:
    """Reads `__all__` of a package without importing it, which would import torch."""
    tree = ast.parse(SOURCE.joinpath(*package.split("."), "__init__.py").read_text(encoding="utf-8"))
    assigned = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(assigned["__all__"])
