"""What a stranger reads first: CONTRIBUTING, SECURITY and the templates name things that exist."""

import re

import pytest
import yaml

DOCUMENTS = ("CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md")
FOLDERS = r"(?:modeling|processing|training|evaluation|src|spaces|tests|examples|model_cards)/"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_and_targets_that_a_document_names_exist(repository, name):
    text = (repository / name).read_text(encoding="utf-8")
    named = {
        path for path in re.findall(rf"`(?:\S+=)?({FOLDERS}[^`\s]*)", text) if "<" not in path and "NAME" not in path
    }
    assert [path for path in sorted(named) if not (repository / path).exists()] == []
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    lines = re.findall(r"^make ([a-z -]+?)(?: {2,}|$)|`make ([a-z -]+)`", text, re.MULTILINE)
    assert {word for found in lines for word in "".join(found).split()} <= targets


def test_limits_that_security_names_are_those_of_the_code(repository):
    from lookhear.processing.avsr import media_source_avsr
    from lookhear.processing.glee import image_reading_glee, video_reading_glee

    text = (repository / "SECURITY.md").read_text(encoding="utf-8")
    assert "more than 4 GiB, or one that takes longer than an hour" in text
    for module in (media_source_avsr, video_reading_glee):
        assert (module.MAX_DOWNLOAD_BYTES, module.MAX_DOWNLOAD_SECONDS) == (4 * 2**30, 3600)
    assert "more than 256 MiB or 10 minutes" in text
    limits = image_reading_glee.MAX_DOWNLOAD_BYTES, image_reading_glee.MAX_DOWNLOAD_SECONDS
    assert limits == (256 * 2**20, 600)


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_are_forms(repository, name):
    """As GitHub takes them: a name, a description, and fields with ids of their own."""
    form = yaml.safe_load((repository / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    assert {"command", "version"} <= {field["id"] for field in fields}
