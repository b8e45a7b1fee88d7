"""How Sphinx builds the documentation."""

from __future__ import annotations

import inspect
import re
from typing import Any

from procore_hooks._version import __version__

project = "procore-hooks"
author = "The procore-hooks authors"
copyright = f"2026, {author}"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"procore-hooks {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Docstrings write code in single backticks.
default_role = "code"
# A few public classes live in private modules, whose names are of no use to a reader.
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

_SEVERAL = re.compile(r"(\s+)(\w+(?:, \w+)+): ")


def one_attribute_a_line(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes ``company_id, project_id: ...`` for one attribute and its type."""
    if "Attributes:" not in lines:
        return
    start = lines.index("Attributes:")
    for index in range(len(lines) - 1, start, -1):
        if several := _SEVERAL.match(lines[index]):
            indent, names = several[1], several[2].split(", ")
            lines[index : index + 1] = [
                *(f"{indent}{each}: see `{names[-1]}`." for each in names[:-1]),
                f"{indent}{names[-1]}: {lines[index][several.end() :]}",
            ]


def plain_property(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon for the property's type."""
    if isinstance(obj, property):
        lines[:] = (inspect.getdoc(obj) or "").splitlines()


def setup(app: Any) -> None:
    """Called by Sphinx. Napoleon works at priority 500."""
    app.connect("autodoc-process-docstring", one_attribute_a_line, priority=400)
    app.connect("autodoc-process-docstring", plain_property, priority=600)
