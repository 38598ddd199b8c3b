"""The recipes of images by kind, scale and name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from iresnet_flows.errors import UsageError, unknown
from iresnet_flows.experiments.images.recipes import Recipe
from iresnet_flows.experiments.studies import check_scale

__all__ = ["classifier", "density", "recipes"]

SOURCES = {
    "density": (("densities", "DENSITIES"), ("rivals", "RIVALS")),
    "classifier": (("classifiers", "CLASSIFIERS"),),
}


def density(name: str, scale: str) -> Recipe:
    """The density of that name.

    Raises:
        UsageError: There is no such scale or density.
    """
    return chosen(name, recipes("density", scale))


def classifier(name: str, scale: str) -> Recipe:
    """The classifier of that name.

    Raises:
        UsageError: There is no such scale or classifier.
    """
    return chosen(name, recipes("classifier", scale))


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


def chosen(name: str, known: Mapping[str, Recipe]) -> Recipe:
    if name not in known:
        raise UsageError(unknown("model", name, known))
    return known[name]
