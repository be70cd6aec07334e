"""A metric as a Space: `evaluate.load("ORG/NAME")` reads it where lookhear is not installed, and its page computes it.

`evaluate` copies a metric's script and the files beside it that the script itself imports. So what a metric needs of
`lookhear.evaluation.measures` goes along as files of its own, and the script imports each of them.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from string import Template

from lookhear.publishing.card import parse_card
from lookhear.publishing.publication import Publication, PublishedFile
from lookhear.publishing.space import check_space

PACKAGE = "lookhear.evaluation.measures"
MEASURES = Path(__file__).resolve().parents[1] / "evaluation" / "measures"
TEXTS = ("DESCRIPTION", "INPUTS", "CITATION")  # of a metric's script


def gather_metric(folder: Path, repo: str) -> Publication:
    """
    Gathers the files of a metric's Space: the page in `spaces/metrics`, the metric, what it needs, and a card.

    Raises:
        ValueError: the repository's name is not the metric's, the metric cannot go without lookhear, or
            `spaces/metrics` is not there.
    """
    folder = folder.resolve()
    name, shell = folder.name, folder.parents[2] / "spaces" / "metrics"
    if repo.split("/")[1] != name:
        raise ValueError(
            f"--repo {repo}: evaluate loads NAME.py of ORG/NAME, so the repository's name has to be {name}"
        )
    if not (shell / "app.py").is_file():
        raise ValueError(
            f"the page of a metric's Space is not at {shell}: publish metrics from a checkout of the project"
        )
    example = shell / "examples" / f"{name}.json"
    if not example.is_file():
        raise ValueError(f"{example} is missing: it holds the rows that the metric's page shows first")
    contents: dict[str, Path | bytes] = {path: shell / path for path in ("app.py", "requirements.txt")}
    contents |= {path: text.encode() for path, text in export_metric(folder / f"{name}.py").items()}
    card = _card(folder / f"{name}.py", shell, repo)
    check_space(parse_card(shell / "card.md", card), ["README.md", *contents])
    contents["README.md"] = card.encode()
    contents["example.json"] = json.dumps({"metric": name, **json.loads(example.read_text())}, indent=1).encode()
    return Publication("metric", repo, [PublishedFile(path, contents[path]) for path in sorted(contents)])


def export_metric(script: Path) -> dict[str, str]:
    """
    Exports a metric's script and all that it needs of lookhear, as files of one folder.

    Returns:
        File name -> source: `NAME.py`, and `lookhear_MODULE.py` for each module of `lookhear.evaluation.measures`.

    Raises:
        ValueError: code of lookhear outside its metrics is needed.
    """
    source, needed = _flattened(script)
    sources, waiting = {}, sorted(needed)
    while waiting:
        module = waiting.pop()
        if f"{_flat(module)}.py" not in sources:
            sources[f"{_flat(module)}.py"], more = _flattened(MEASURES / f"{module}.py")
            needed |= more
            waiting += sorted(more)
    return {script.name: _importing(source, sorted(needed)), **sources}


def _flat(module: str) -> str:
    return f"lookhear_{module}"


def _flattened(path: Path) -> tuple[str, set[str]]:
    """Returns (source with imports from its own folder, modules of `lookhear.evaluation.measures` that it imports)."""
    source, needed = path.read_text(encoding="utf-8"), set()
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "lookhear" for alias in node.names):
            raise ValueError(
                f"{path}, line {node.lineno}: write `from {PACKAGE}.… import …`, so that it can be exported"
            )
        imported = node.module or "" if isinstance(node, ast.ImportFrom) and not node.level else ""
        if not isinstance(node, ast.ImportFrom) or imported.split(".")[0] != "lookhear":
            continue
        if imported == PACKAGE:
            modules = [alias.name for alias in node.names]
            local = ast.ImportFrom(None, [ast.alias(_flat(a.name), a.asname or a.name) for a in node.names], 1)
        elif imported.startswith(f"{PACKAGE}."):
            modules = [imported.removeprefix(f"{PACKAGE}.")]
            local = ast.ImportFrom(_flat(modules[0]), node.names, 1)
        else:
            raise ValueError(f"{path} imports {imported}: a metric may import nothing of lookhear but {PACKAGE}")
        needed |= set(modules)
        lines[node.lineno - 1] = " " * node.col_offset + ast.unparse(local) + "\n"
        end = node.end_lineno or node.lineno
        lines[node.lineno : end] = [""] * (end - node.lineno)
    return "".join(lines), needed


def _importing(source: str, modules: list[str]) -> str:
    """
    Adds an import of each module to the script, which is what `evaluate` looks for; comments there would mislead it.
    """
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    last = max(node.end_lineno or node.lineno for node in imports)
    lines = source.splitlines(keepends=True)
    lines[last:last] = [f"from .{_flat(module)} import __name__ as _{module}\n" for module in modules]
    return "".join(lines)


def _card(script: Path, shell: Path, repo: str) -> str:
    """Fills the card's template with the metric's own texts."""
    texts: dict[str, str] = {}
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in TEXTS:
            texts[node.targets[0].id.lower()] = ast.literal_eval(node.value).strip()
    if missing := [name for name in TEXTS if name.lower() not in texts]:
        raise ValueError(f"{script} has no {missing[0]}")
    template = Template((shell / "card.md").read_text(encoding="utf-8"))
    return template.substitute(texts, name=script.stem, repo=repo)
