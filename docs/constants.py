"""Constants on the pages of the API: the comment beside or above one, which says what it is, is its docstring."""

import ast
import re

import griffe


class ConstantComments(griffe.Extension):
    """Gives each constant the comment on its line, or the lines of comment above it, as docstring."""

    def on_attribute_instance(self, *, node: ast.AST | griffe.ObjectNode, attr: griffe.Attribute, **_: object) -> None:
        """Looks at one name that a module or class assigns.

        Args:
            node: its syntax.
            attr: what griffe knows of it.
        """
        if attr.docstring or not attr.name.isupper() or attr.lineno is None:
            return
        lines = attr.lines_collection[attr.filepath][: attr.lineno]
        if beside := re.search(r"\s#\s*(\S.*)$", lines.pop()):
            comment = beside[1]
        else:
            above = []
            while lines and lines[-1].startswith("# "):
                above.insert(0, lines.pop()[2:])
            comment = " ".join(above)
        if comment:
            attr.docstring = griffe.Docstring(comment, lineno=attr.lineno, parent=attr)
