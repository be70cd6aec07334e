"""Reproduction of tables: `lookhear reproduce NAME` prepares, trains and measures its rows, and shows the figures."""

from lookhear.reproduction.definitions import Paper, Table, find_paper, read_papers
from lookhear.reproduction.estimate import describe_plan
from lookhear.reproduction.places import Places
from lookhear.reproduction.running import reproduce

__all__ = ["Paper", "Places", "Table", "describe_plan", "find_paper", "read_papers", "reproduce"]
