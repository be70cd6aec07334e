"""What pyproject.toml allows is what was tested: constraints.txt is the tested set, its bounds follow from it."""

import re
import tomllib

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PYTHONS = ("3.11", "3.12", "3.13")
# Whose versions are dates: a new number before the first dot says nothing, so the next one is the bound.
DATED = {"packaging", "setuptools"}
# torchvision 0.29.2 is built beside torch 2.15, which is not tested.
UPPER = {"torchvision": "0.29.2"}


@pytest.fixture(scope="module")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def requirements(project) -> list[Requirement]:
    """Those of the package and of all its extras, without the package itself."""
    lines = sum(project["optional-dependencies"].values(), project["dependencies"])
    return [one for one in map(Requirement, lines) if one.name != "lookhear"]


@pytest.fixture(scope="module")
def constraints(repository) -> list[Requirement]:
    lines = (repository / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def versions(constraints: list[Requirement], name: str, python: str | None = None) -> list[Version]:
    """The versions of a package in the tested set; with `python`, those of that Python on this system."""
    system = default_environment() | {"python_version": python, "python_full_version": f"{python}.0"}
    return [
        Version(str(one.specifier).removeprefix("=="))
        for one in constraints
        if canonicalize_name(one.name) == canonicalize_name(name)
        and (python is None or one.marker is None or one.marker.evaluate(system))
    ]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_tested_set_has_every_requirement_once(requirements, constraints, python):
    for requirement in requirements:
        found = versions(constraints, requirement.name, python)
        assert len(found) == 1, f"{requirement.name} on Python {python}: {found}; run `make constraints`"


def test_the_tested_set_is_within_the_bounds(requirements, constraints):
    for requirement in requirements:
        for version in versions(constraints, requirement.name):
            assert version in requirement.specifier, f"{requirement}: {version} is tested; run `make constraints`"


def test_upper_bounds_are_the_minor_versions_after_the_tested_ones(requirements, constraints):
    for requirement in requirements:
        tested = max(versions(constraints, requirement.name))
        following = (tested.major + 1,) if requirement.name in DATED else (tested.major, tested.minor + 1)
        expected = UPPER.get(requirement.name, ".".join(map(str, following)))
        upper = [one.version for one in requirement.specifier if one.operator == "<"]
        assert [Version(one) for one in upper] == [Version(expected)], f"{requirement}: {tested} is tested"


def test_every_requirement_has_a_lower_bound(requirements):
    for requirement in requirements:
        assert ">=" in str(requirement.specifier), requirement


def test_the_tested_set_names_no_place(repository):
    """Neither hosts nor files: any index will do."""
    text = (repository / "constraints.txt").read_text()
    assert not re.search(r"https?:|file:|--", text)


def test_pythons_are_those_that_continuous_integration_runs(repository, project):
    assert project["requires-python"] == f">={PYTHONS[0]}"
    named = [one.split()[-1] for one in project["classifiers"] if "Python :: 3." in one]
    assert tuple(named) == PYTHONS
    workflow = (repository / ".github" / "workflows" / "tests.yml").read_text()
    assert all(f'"{python}"' in workflow for python in PYTHONS)


def test_setup_installs_the_tested_set(repository):
    """As well as both other environments have their targets."""
    makefile = (repository / "Makefile").read_text()
    assert "pip install --disable-pip-version-check -c constraints.txt -e '.[all,dev]'" in makefile
    assert "\ntest-newest:" in makefile and "\ntest-lowest:" in makefile
