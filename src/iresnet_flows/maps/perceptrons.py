"""Multilayer perceptrons with all that they depend on in place, and their Jacobians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import ClassVar, Protocol

from torch import Tensor

from iresnet_flows.maps.contract import Rebuilt
from iresnet_flows.maps.jacobians import ChainJacobian, Jacobian, MatrixJacobian
from iresnet_flows.maps.linear import LinearMap

__all__ = ["Nonlinearity", "Perceptron", "Scaled", "weight_shapes"]


class Nonlinearity(Protocol):
    """A function of each entry alone, of shape (B, h, *space), with its k features."""

    def value(self, z: Tensor) -> Tensor:
        """The features, with shape (B, k h, *space)."""

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The features and their derivatives, with shape (B, k, h, *space)."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it depends on."""

    @property
    def rebuild(self) -> Callable[..., Nonlinearity]:
        """Gives a function like this one from other tensors, and keeps none of these."""


@dataclass(frozen=True)
class Scaled:
    """A nonlinearity times a factor of each entry.

    Arguments:
        nonlinearity: What is multiplied.
        scale: The factors, with shape (h,) or (B, h).
    """

    nonlinearity: Nonlinearity
    scale: Tensor

    def value(self, z: Tensor) -> Tensor:
        return self.times(copies(self.nonlinearity.value(z), z)).flatten(1, 2)

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        features, slopes = self.nonlinearity.linearize(z)
        return self.times(copies(features, z)).flatten(1, 2), self.times(slopes)

    def times(self, copies: Tensor) -> Tensor:
        *batch, h = self.scale.shape
        return copies * self.scale.reshape(*batch, 1, h, *[1] * (copies.dim() - 3))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return *self.nonlinearity.tensors, self.scale

    @property
    def rebuild(self) -> Callable[..., Scaled]:
        return partial(scale, self.nonlinearity.rebuild)

    def take(self, rows: Tensor) -> Scaled:
        return replace(self, scale=per_row(self.scale, rows))


def scale(rebuild: Callable[..., Nonlinearity], *tensors: Tensor) -> Scaled:
    return Scaled(rebuild(*tensors[:-1]), tensors[-1])


def copies(features: Tensor, z: Tensor) -> Tensor:
    """The features of entries z, with shape (B, k, h, *space)."""
    h = z.shape[1]
    return features.unflatten(1, (features.shape[1] // h, h))


def weight_shapes(
    features: int, hidden_features: Sequence[int], copies: Sequence[int]
) -> list[tuple[int, int]]:
    """The shapes of the matrices of a perceptron from d features to d.

    Arguments:
        features: The dimension d.
        hidden_features: The widths of the hidden layers: the features that each hands on.
        copies: For each of them, the features that its activation gives an entry.
    """
    entries = [h // k for h, k in zip(hidden_features, copies, strict=True)]
    return list(zip([*entries, features], [features, *hidden_features], strict=True))


@dataclass(frozen=True)
class Perceptron(Rebuilt):
    r"""The map :math:`x \mapsto W_L a(\cdots a(W_1 x + b_1) \cdots) + b_L`.

    Arguments:
        maps: The linear maps :math:`W_i`.
        biases: The vectors :math:`b_i`, with shapes (h_i,) or (B, h_i).
        activations: For each hidden layer, what gives features and slopes of its entries.
    """

    maps: tuple[LinearMap, ...]
    biases: tuple[Tensor, ...]
    activations: tuple[Nonlinearity, ...]

    chain: ClassVar[type[ChainJacobian]] = MatrixJacobian

    def __call__(self, x: Tensor) -> Tensor:
        for linear, bias, activation in zip(self.maps, self.biases, self.activations):
            x = activation.value(linear(x, bias))
        return self.maps[-1](x, self.biases[-1])

    def linearize(self, x: Tensor) -> tuple[Tensor, Jacobian]:
        """The value at x and the Jacobian there, from one pass."""
        slopes = []
        for linear, bias, activation in zip(self.maps, self.biases, self.activations):
            x, slope = activation.linearize(linear(x, bias))
            slopes.append(slope.to(linear.weight.dtype))  # not that of autocast
        value = self.maps[-1](x, self.biases[-1])
        return value, self.chain(self.maps, tuple(slopes))

    def take(self, rows: Tensor) -> Perceptron:
        """The map for some rows of the batch, where biases and scales are given for each."""
        biases = tuple(per_row(bias, rows) for bias in self.biases)
        activations = tuple(a.take(rows) if isinstance(a, Scaled) else a for a in self.activations)
        return replace(self, biases=biases, activations=activations)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        inner = (t for a in self.activations for t in a.tensors)
        return *(m.weight for m in self.maps), *self.biases, *inner

    @property
    def rebuild(self) -> Callable[..., Perceptron]:
        maps = tuple(type(m) for m in self.maps)
        activations = tuple((len(a.tensors), a.rebuild) for a in self.activations)
        bare = replace(self, maps=(), biases=(), activations=())
        return partial(fill, bare, maps, activations)


def fill(
    empty: Perceptron,
    maps: Sequence[Callable[[Tensor], LinearMap]],
    activations: Sequence[tuple[int, Callable[..., Nonlinearity]]],
    *tensors: Tensor,
    **others: Tensor,
) -> Perceptron:
    rest = iter(tensors)
    return replace(
        empty,
        **others,
        maps=tuple(m(w) for m, w in zip(maps, rest)),
        biases=tuple(islice(rest, len(maps))),
        activations=tuple(a(*islice(rest, count)) for count, a in activations),
    )


def per_row(values: Tensor, rows: Tensor) -> Tensor:
    return values[rows] if values.dim() == 2 else values
