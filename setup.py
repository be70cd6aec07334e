"""Sees to it that the sdist holds each file once; everything else about the package is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

LINKS = {path for path in Path("src/lookhear").iterdir() if path.is_symlink()}


class SdistWithLinks(sdist):
    """The sdist has src/lookhear/modeling and its neighbours as links, as the repository does, not as copies."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, [file for file in files if not LINKS & set(Path(file).parents)])
        for link in LINKS:
            (Path(base_dir) / link).symlink_to(link.readlink())


setup(cmdclass={"sdist": SdistWithLinks})
