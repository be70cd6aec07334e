"""Constants on the pages of the API: the comment beside one, which says what it is, stands for a docstring."""

import ast
import re

import griffe


class ConstantComments(griffe.Extension):
    """Gives each constant of a module the comment on its line as docstring."""

    def on_attribute_instance(self, *, node: ast.AST | griffe.ObjectNode, attr: griffe.Attribute, **_: object) -> None:
        """Looks at one name that a module or class assigns.

        Args:
            node: its syntax.
            attr: what griffe knows of it.
        """
        if attr.docstring or not attr.name.isupper() or not attr.lines:
            return
        if comment := re.search(r"\s#\s*(\S.*)$", attr.lines[0]):
            attr.docstring = griffe.Docstring(comment[1], lineno=attr.lineno, parent=attr)
