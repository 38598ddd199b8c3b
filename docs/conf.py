"""Sphinx's settings."""

import os
from importlib.metadata import version as installed

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
