"""Sphinx's settings."""

from importlib.metadata import version as installed
from typing import Any

project = "iresnet_flows"
author = "iresnet_flows contributors"
release = version = installed("iresnet-flows")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
default_role = "py:obj"
myst_heading_anchors = 3
nitpicky = True
# What docstrings quote may be an argument's name; torch's pages are not read.
nitpick_ignore_regex = [("py:obj", ".*"), ("py:class", r"torch\..*")]
napoleon_google_docstring = True
napoleon_custom_sections = [("Shapes", "notes_style"), ("Arguments", "params_style")]
napoleon_use_ivar = True

html_theme = "furo"
html_title = "iresnet_flows"


def by_name(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """What a docstring quotes by its last name, where one object has it."""
    objects = env.domains["py"].objects
    found = [name for name in objects if name.rpartition(".")[2] == node["reftarget"]]
    if node.get("reftype") != "obj" or len(found) != 1:
        return None
    place = node["refdoc"], app.builder
    return env.domains["py"].resolve_xref(env, *place, "obj", found[0], node, shown)


def setup(app: Any) -> None:
    app.connect("missing-reference", by_name)
