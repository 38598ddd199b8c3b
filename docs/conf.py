"""Sphinx's settings."""

from importlib.metadata import version as installed

project = "iresnet_flows"
author = "iresnet_flows contributors"
release = version = installed("iresnet-flows")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True
napoleon_custom_sections = [("Shapes", "notes_style"), ("Arguments", "params_style")]
napoleon_use_ivar = True

html_theme = "furo"
html_title = "iresnet_flows"
