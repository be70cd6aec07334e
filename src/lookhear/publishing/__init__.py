"""Checkpoints, Spaces, metrics and benchmarks as repositories of the Hub: what `lookhear publish` does.

`gather` makes the complete list of files of a folder and checks them, without network; `push` sends them in one
commit.
"""

from lookhear.publishing.gathering import gather
from lookhear.publishing.publication import Publication, PublishedFile
from lookhear.publishing.pushing import PushError, push

__all__ = ["Publication", "PublishedFile", "PushError", "gather", "push"]
