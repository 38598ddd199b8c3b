"""Sphinx's settings."""

import os
from importlib.metadata import version as installed
from typing import Any

project = "iresnet_flows"
author = "iresnet_flows contributors"
release = version = installed("iresnet-flows")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["gallery"]  # its pages are made in auto_gallery
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

# Scripts share the processors, and their times and last digits should not depend on how many.
os.environ["OMP_NUM_THREADS"] = "1"
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "capture_repr": (),
    "download_all_examples": False,
    "image_srcset": ["2x"],
    "parallel": 2,
    "show_signature": False,
    "write_computation_times": False,
    "within_subsection_order": "ExampleTitleSortKey",
}

html_theme = "furo"
html_title = "iresnet_flows"
html_static_path = ["_static"]
html_css_files = ["gallery.css"]


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
