"""Abstract modules without a metaclass, for Pyro's `PyroModule` has one of its own."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["AbstractModule"]


class AbstractModule(nn.Module):
    """A module that cannot be made while a method of it is abstract, as with `abc.ABC`."""

    __abstractmethods__: frozenset[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__abstractmethods__ = frozenset(
            name
            for name in dir(cls)
            if getattr(getattr(cls, name, None), "__isabstractmethod__", False)
        )
