"""What a library asks for after each step of an optimiser."""

from __future__ import annotations

from importlib import import_module

from torch import nn

__all__ = ["update_normflows"]

ITERATIONS = 5  # the default of normflows' layers


def update_normflows(module: nn.Module) -> None:
    """Bring the weights of normflows' Lipschitz layers in it below their bound again."""
    import_module("normflows").utils.update_lipschitz(module, ITERATIONS)
