"""The recipes of images by kind, scale and name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from iresnet_flows.errors import UsageError, unknown
from iresnet_flows.experiments.images.recipes import Recipe
from iresnet_flows.experiments.studies import check_scale

__all__ = ["recipe", "recipes"]

SOURCES = {
    "density": (("densities", "DENSITIES"), ("rivals", "RIVALS")),
    "classifier": (("classifiers", "CLASSIFIERS"),),
}


def recipe(kind: str, name: str, scale: str) -> Recipe:
    """That of a ``density`` or ``classifier``.

    Raises:
        UsageError: There is no such scale or name.
    """
    known = recipes(kind, scale)
    if name not in known:
        raise UsageError(unknown("model", name, known))
    return known[name]


def recipes(kind: str, scale: str) -> Mapping[str, Recipe]:
    """All of a kind, ``density`` or ``classifier``.

    Raises:
        UsageError: There is no such scale.
    """
    check_scale(scale)
    found: dict[str, Recipe] = {}
    for module, table in SOURCES[kind]:
        source = import_module(f"iresnet_flows.experiments.images.{module}")
        found.update(getattr(source, table)[scale])
    return found
