"""Base distributions of other hosts as nflows distributions, with all of their parameters."""

from __future__ import annotations

from abc import abstractmethod
from copy import copy
from typing import Any

import torch
from nflows.distributions.base import Distribution
from torch import Tensor, nn
from torch.distributions import Distribution as TorchDistribution

from iresnet_flows.errors import UsageError

__all__ = ["HostBase", "NormflowsBase", "OwnedBase", "TorchBase", "ZukoBase"]


class HostBase(Distribution):
    """A distribution of another host, of (B, d) samples and without a context."""

    def _log_prob(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        value = self.measure(inputs)
        return value if value.dim() == 1 else value.flatten(1).sum(1)

    def _sample(self, num_samples: int, context: Tensor | None) -> Tensor:
        return self.draw(num_samples)

    @abstractmethod
    def measure(self, z: Tensor) -> Tensor:
        """The log-density of each row, or of each of its entries."""

    @abstractmethod
    def draw(self, count: int) -> Tensor:
        """So many rows."""


class NormflowsBase(HostBase):
    """A base distribution of normflows.

    Arguments:
        base: A module with `log_prob`, whose call gives samples and their log-densities.
    """

    base: Any

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def measure(self, z: Tensor) -> Tensor:
        value: Tensor = self.base.log_prob(z)
        return value

    def draw(self, count: int) -> Tensor:
        samples: Tensor = self.base(count)[0]
        return samples


class BuiltBase(HostBase):
    """A base that is a distribution of torch, built anew for each call."""

    @abstractmethod
    def build(self) -> Any:
        """The distribution with its present parameters."""

    def measure(self, z: Tensor) -> Tensor:
        value: Tensor = self.build().log_prob(z)
        return value

    def draw(self, count: int) -> Tensor:
        samples: Tensor = self.build().sample((count,))
        return samples


class ZukoBase(BuiltBase):
    """A lazy distribution of zuko.

    Arguments:
        lazy: A module whose call gives the distribution.
    """

    lazy: Any

    def __init__(self, lazy: nn.Module) -> None:
        super().__init__()
        self.lazy = lazy

    def build(self) -> Any:
        return self.lazy()


class OwnedBase(BuiltBase):
    """The `base_dist` of a module, asked for anew each time, for it may be computed.

    Arguments:
        owner: The module.
    """

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner = owner

    def build(self) -> Any:
        return self.owner.base_dist


class TorchBase(BuiltBase):
    """A distribution of torch or Pyro; its parameters and tensors are those of the module.

    Arguments:
        distribution: It. A trainable tensor in it must be a parameter, as it is or expanded.

    Raises:
        UsageError: A tensor in it was computed from parameters, once and for all.
    """

    def __init__(self, distribution: TorchDistribution) -> None:
        super().__init__()
        self.kinds = distribution
        self.kinds = self.renewed(distribution, "base", self.register)

    def build(self) -> Any:
        return self.renewed(self.kinds, "base", self.present)

    def renewed(self, distribution: Any, path: str, visit: Any) -> Any:
        """A copy in which `visit` has replaced each tensor."""
        result = copy(distribution)
        for name, value in vars(distribution).items():
            if isinstance(value, TorchDistribution):
                result.__dict__[name] = self.renewed(value, f"{path}_{name}", visit)
            elif isinstance(value, Tensor):
                result.__dict__[name] = visit(f"{path}_{name}", value)
        return result

    def register(self, name: str, value: Tensor) -> Tensor:
        """Keep the tensor under that name; what is left in its place tells its shape alone."""
        leaf = value if value.is_leaf else value._base
        if not value.requires_grad:
            self.register_buffer(name, value.detach().clone())
        elif leaf is not None and leaf.is_leaf and value.numel() >= leaf.numel():
            self.register_parameter(name, as_parameter(leaf))
        else:
            raise UsageError(
                "a tensor of the base distribution was computed from parameters when it was "
                "built, and would not follow them: give a module that computes base_dist, such "
                "as a property of it, or a base of nflows, normflows or zuko."
            )
        return torch.empty(()).expand(value.shape)

    def present(self, name: str, shaped: Tensor) -> Tensor:
        value: Tensor = getattr(self, name)
        return value.expand(shaped.shape)


def as_parameter(leaf: Tensor) -> nn.Parameter:
    return leaf if isinstance(leaf, nn.Parameter) else nn.Parameter(leaf)
