"""Sphinx's settings."""

import ast
import os
from importlib.metadata import version as installed
from itertools import chain
from pathlib import Path
from typing import Any

import iresnet_flows

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
# Their pages are not read. All else that is quoted is ours, and has to be there.
FOREIGN = (
    *("AutoNormalizingFlow", "ComposeTransformModule", "CompositeTransform"),
    *("ConditionalTransformModule", "InverseTransform", "LazyTransform", "MAF", "NFlowsFlow"),
    *("NLE", "NPE", "NSF", "SimpleRealNVP", "Transform", "TransformModule", "ZukoFlow"),
    *("build_maf", "build_zuko_nsf", "cdf", "eval", "forward_kld", "icdf", "inverse_transform"),
    *("iterated", "reverse_kld", "x_dist"),
)
nitpick_ignore_regex = [("py:(class|obj)", r"torch\..*"), ("py:obj", "|".join(FOREIGN))]
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


def names_of_values() -> set[str]:
    """Those of arguments and fields, which have no entry to refer to."""
    nodes = chain.from_iterable(ast.walk(ast.parse(p.read_text())) for p in SOURCE.rglob("*.py"))
    return {
        node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
        for node in nodes
        if isinstance(node, ast.arg | ast.AnnAssign)
    }


SOURCE = Path(iresnet_flows.__file__).parent
VALUES = names_of_values()


def by_name(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """What a docstring quotes by its last name: a link where one object has it, else text."""
    if node.get("reftype") != "obj":
        return None
    name, objects = node["reftarget"], env.domains["py"].objects
    found = [o for o, e in objects.items() if o.rpartition(".")[2] == name and not e.aliased]
    if len(found) == 1:
        place = node["refdoc"], app.builder
        return env.domains["py"].resolve_xref(env, *place, "obj", found[0], node, shown)
    return shown if found or name in VALUES else None


def setup(app: Any) -> None:
    app.connect("missing-reference", by_name)
