"""The documentation builds without a warning, says all that is public, names what exists; its notebooks run."""

import importlib
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = {  # each with its page
    "lookhear.modeling.avsr": "modeling_avsr",
    "lookhear.modeling.glee": "modeling_glee",
    "lookhear.modeling.lisa_glee": "modeling_lisa_glee",
    "lookhear.processing.avsr": "processing_avsr",
    "lookhear.processing.glee": "processing_glee",
    "lookhear.processing.lisa_glee": "processing_lisa_glee",
    "lookhear.batch": "batch",
    "lookhear.evaluation": "evaluation",
    "lookhear.publishing": "publishing",
    "lookhear.training.avsr.synthesis": "training",
}
NOTEBOOKS = ("speech", "vision")
MOST_BYTES = 160_000  # of a picture: pages are to be there at once


@pytest.fixture(scope="module")
def build(repository, tmp_path_factory):
    """(the finished process, folder of the site) of a strict build."""
    pytest.importorskip("material", reason="needs lookhear[docs]")
    pytest.importorskip("mkdocstrings", reason="needs lookhear[docs]")
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    return done, site


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def documents(repository: Path) -> list[Path]:
    """Every Markdown file that is part of the repository."""
    folders = ("docs", "training", "evaluation", "benchmarks", "model_cards", "spaces", ".github")
    return [*repository.glob("*.md"), *(path for folder in folders for path in (repository / folder).rglob("*.md"))]


def test_the_site_builds_without_a_warning(build):
    done, _ = build
    said = [line for line in (done.stdout + done.stderr).splitlines() if line and not line.startswith("INFO")]
    assert (said, done.returncode) == ([], 0)


@pytest.mark.parametrize(("package", "page"), PACKAGES.items())
def test_every_public_name_is_on_the_page_of_its_package(build, package, page):
    text = (build[1] / "reference" / f"{page}.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'id="([\w.]+)"', text))
    assert {f"{package}.{name}" for name in importlib.import_module(package).__all__} - shown == set()


def test_every_name_of_lookhear_is_in_the_overview(repository):
    import lookhear

    text = (repository / "docs" / "reference" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[`(\w+)`\]", text, re.MULTILINE)) == set(lookhear.__all__)


def test_pages_load_nothing_from_elsewhere(build):
    """Scripts, styles, fonts and pictures are the site's own: it is read without network."""
    for page in pages(build[1]):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="([^"]+)"', text)
        loaded += re.findall(r'<link\b[^>]*\bhref="([^"]+)"', text)
        assert [name for name in loaded if re.match(r"(https?:)?//", name)] == [], page


def test_every_command_has_its_help_on_the_page(build):
    from lookhear_command import COMMANDS

    text = (build[1] / "command_line.html").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"usage: lookhear {command.__name__.rpartition('.')[2]} " in text
    assert not any("{{" in page.read_text(encoding="utf-8") for page in pages(build[1]))


def test_every_docstring_parses():
    """As the tools read them that make API pages: one parameter a line, each of them in the signature."""
    griffe = pytest.importorskip("griffe", reason="needs lookhear[docs]")
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record):
            found.append(record.getMessage())

    listener, logger = Listener(), logging.getLogger("griffe")
    logger.addHandler(listener)
    try:
        for name in ("lookhear", "lookhear_command"):
            parse_docstrings(griffe.load(name, search_paths=["src"], docstring_parser="google"), set())
    finally:
        logger.removeHandler(listener)
    assert [message for message in found if ".py:" in message] == []


def parse_docstrings(item, seen: set[int]) -> None:
    """Parses the docstrings of a module, class or function and of all in it."""
    if item.is_alias or id(item) in seen:
        return
    seen.add(id(item))
    if item.docstring:
        item.docstring.parse("google")
    for member in item.members.values():
        parse_docstrings(member, seen)


def test_links_lead_to_files(repository):
    """Relative links and pictures of every document; mkdocs knows the anchors of the site's own pages."""
    missing = []
    for path in documents(repository):
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
            if re.match(r"\w+:|#", link) or (path.parent / link.partition("#")[0]).exists():
                continue
            missing.append(f"{path.relative_to(repository)}: {link}")
    assert missing == []


def test_paths_that_the_pages_name_exist(repository):
    folders = r"(?:modeling|processing|training|evaluation|src|spaces|tests|examples|model_cards|benchmarks)/"
    for path in [repository / "README.md", *(repository / "docs").rglob("*.md")]:
        for name in re.findall(rf"`({folders}[\w./-]*)`", path.read_text(encoding="utf-8")):
            assert (repository / name).exists(), f"{path.relative_to(repository)}: {name}"


def test_papers_name_files_that_exist(repository):
    """A name without a folder is in the folder that its row names first."""
    for row in (repository / "docs" / "papers.md").read_text(encoding="utf-8").splitlines():
        files = re.findall(r"`([\w./]+\.py)`", row)
        for name in files:
            folder = Path(files[0]).parent if "/" not in name else Path()
            assert (repository / folder / name).is_file(), row


def test_modules_that_the_pages_name_exist(repository):
    """`clip_report_avsr`, `decoder_glee`: files of the two systems, where they are named without folder and ending."""
    modules = {path.stem for folder in ("modeling", "processing") for path in (repository / folder).rglob("*.py")}
    for page in ("structure.md", "papers.md"):
        named = re.findall(r"`(\w+_(?:avsr|glee))`", (repository / "docs" / page).read_text(encoding="utf-8"))
        assert set(named) - modules == set(), page


def test_every_guide_has_a_picture_and_every_picture_is_small_and_shown(repository):
    folder = repository / "docs"
    pages = sorted(folder.rglob("*.md"))
    shown = {page: re.findall(r"!\[.+\]\((?:\.\./)?pictures/(\S+)\)", page.read_text()) for page in pages}
    guides = [page for page in pages if page.parent.name == "guides"]
    assert len(guides) == 9 and all(shown[guide] for guide in guides)
    for picture in (folder / "pictures").iterdir():
        assert picture.stat().st_size <= MOST_BYTES, picture
    used = {name for names in shown.values() for name in names} | {"overview.jpg", "favicon.svg"}
    assert used == {picture.name for picture in (folder / "pictures").iterdir()}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_stored_without_outputs(repository, name):
    cells = json.loads((repository / "docs" / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_run(repository, tmp_path, name):
    pytest.importorskip("nbclient", reason="needs lookhear[dev]")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(repository / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    expected = {"speech": "the person on the left:  set white by k nine soon", "vision": "the blue ring"}
    assert expected[name] in printed
