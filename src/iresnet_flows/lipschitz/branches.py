"""What a branch g of a residual block is."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from iresnet_flows.abstract import AbstractModule
from iresnet_flows.checks import check_count, check_lipschitz
from iresnet_flows.maps.contract import Map

__all__ = ["BoundedBranch", "Branch", "Residual"]


class Residual(Map, Protocol):
    """A branch with its parameters and its context in place.

    Attributes:
        lipschitz: A certified bound of its Lipschitz constant, a scalar tensor.

    Example:
        >>> import torch
        >>> from iresnet_flows import LipschitzMLP
        >>> g = LipschitzMLP(2).at()
        >>> value, jacobian = g.linearize(torch.randn(5, 2))
        >>> jacobian.dense().shape
        torch.Size([5, 2, 2])
        >>> bool((torch.linalg.matrix_norm(jacobian.dense(), 2) <= g.lipschitz).all())
        True
    """

    @property
    def lipschitz(self) -> Tensor: ...


class Branch(AbstractModule):
    """A module g with a certified Lipschitz constant below one, in the Euclidean norm of x.

    Attributes:
        context_features: The size of the context that it asks for, or None.

    Example:
        >>> import torch
        >>> from iresnet_flows import ClaimedBranch
        >>> from iresnet_flows.lipschitz import Branch
        >>> class Wrapped(Branch):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.inner = ClaimedBranch(torch.nn.Tanh(), lipschitz=0.999)
        ...     def check(self, x, context=None):
        ...         self.inner.check(x, context)
        ...     def at(self, context=None):
        ...         return self.inner.at(context)
        >>> float(Wrapped().lipschitz_bound())
        0.999
    """

    context_features: int | None = None

    @abstractmethod
    def check(self, x: Tensor, context: Tensor | None = None) -> None:
        """Refuse shapes and dtypes that do not fit."""

    @abstractmethod
    def at(self, context: Tensor | None = None) -> Residual:
        """The branch with its present parameters and a context in place."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The value g(x; c)."""
        self.check(x, context)
        return self.at(context)(x)

    def lipschitz_bound(self) -> Tensor:
        """A certified upper bound of the constant that the present parameters have.

        Returns:
            A scalar in float64 without gradient, in the Euclidean norm.
        """
        with torch.no_grad():
            return self.at().lipschitz


class BoundedBranch(Branch):
    """A branch whose constant its user sets, at the start and whenever else.

    Arguments:
        lipschitz: The bound of the branch, in (0, 1).
        context_features: The dimension of the context, or None.
    """

    def __init__(self, lipschitz: float, context_features: int | None) -> None:
        super().__init__()
        self.lipschitz = lipschitz
        if context_features is not None:
            check_count("context_features", context_features)
        self.context_features = context_features

    @property
    def lipschitz(self) -> float:
        value: float = self.__dict__["lipschitz"]
        return value

    @lipschitz.setter
    def lipschitz(self, value: float) -> None:
        check_lipschitz(value)
        self.__dict__["lipschitz"] = float(value)  # where a `Pair` sees it change
