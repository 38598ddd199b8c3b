"""Densely connected perceptrons with all that they depend on in place, and their Jacobians."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from iresnet_flows.maps.jacobians import Jacobian, add_up, gather, spread
from iresnet_flows.maps.linear import LinearMap, Matrix
from iresnet_flows.maps.perceptrons import Nonlinearity, Perceptron
from iresnet_flows.maps.traces import cheap_traces, one_layer_traces, two_layer_trace

__all__ = ["DenseJacobian", "DensePerceptron"]


@dataclass(frozen=True)
class DenseJacobian(Jacobian):
    r"""The Jacobian :math:`J = W_L H_{L-1} \cdots H_1`, :math:`H_i = [\eta_i I; D_i W_i]`.

    Each layer hands on what it was given, times :math:`\eta_i`, and adds features to it. The
    trace is a sum over the paths through the layers, and cheap with one or two of them; with one,
    that of the square too.

    Arguments:
        maps: The matrices :math:`W_i`, two at least.
        slopes: The derivatives in :math:`D_i`, with shapes (B, k, h_i), one fewer.
        kept: The factors :math:`\eta_i`, as many as slopes.
    """

    maps: tuple[LinearMap, ...]
    slopes: tuple[Tensor, ...]
    kept: Tensor

    @property
    def batch_event(self) -> tuple[int, ...]:
        return self.slopes[0].shape[0], self.maps[0].weight.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return *(m.weight for m in self.maps), *self.slopes, self.kept

    @property
    def rebuild(self) -> Callable[..., DenseJacobian]:
        return partial(assemble, len(self.maps))

    def take(self, rows: Tensor) -> DenseJacobian:
        return replace(self, slopes=tuple(s[rows] for s in self.slopes))

    def apply(self, v: Tensor) -> Tensor:
        for linear, slopes, kept in zip(self.maps, self.slopes, self.kept.unbind()):
            v = torch.cat((kept * v, spread(slopes, linear(v))), -1)
        return self.maps[-1](v)

    def apply_transposed(self, w: Tensor) -> Tensor:
        w = self.maps[-1].transposed(w)
        layers = zip(self.maps[-2::-1], self.slopes[::-1], self.kept.unbind()[::-1], strict=True)
        for linear, slopes, kept in layers:
            old, new = split(w, slopes)
            w = kept * old + linear.transposed(gather(slopes, new))
        return w

    def cotangents(
        self, w: Tensor, v: Tensor, steps: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, ...]:
        inputs, entries = [v], []
        for linear, slopes, kept in zip(self.maps, self.slopes, self.kept.unbind()):
            entries.append(linear(inputs[-1]))
            inputs.append(torch.cat((kept * inputs[-1], spread(slopes, entries[-1])), -1))

        last = self.maps[-1]
        weights, slopes_bar, kept_bar = [last.cotangent(w, inputs.pop())], [], []
        w = last.transposed(w)
        layers = zip(self.maps[-2::-1], self.slopes[::-1], self.kept.unbind()[::-1], strict=True)
        for linear, slopes, kept in layers:
            x, z = inputs.pop(), entries.pop()
            old, new = split(w, slopes)
            kept_bar.append((old * x).sum())
            slopes_bar.append(add_up(new.unflatten(2, slopes.shape[1:3]) * z.unsqueeze(2), 0))
            pulled = gather(slopes, new)
            weights.append(linear.cotangent(pulled, x))
            w = kept * old + linear.transposed(pulled)
        return *weights[::-1], *slopes_bar[::-1], torch.stack(kept_bar[::-1])

    def known_traces(self, count: int) -> int:
        return min(count, cheap_traces(len(self.slopes)))

    def traces(self, count: int) -> tuple[Tensor, ...]:
        known = self.known_traces(count)
        if not known:
            return ()
        features, grown = self.batch_event[1], [s.shape[1] * s.shape[2] for s in self.slopes]
        a, b, *c = self.maps[-1].weight.split([features, *grown], -1)
        return (self.two_layer_trace(a, b, *c),) if c else self.one_layer_traces(a, b, known)

    def one_layer_traces(self, a: Tensor, b: Tensor, count: int) -> tuple[Tensor, ...]:
        r"""tr J and tr J^2 of :math:`J = \eta A + B D W_1`."""
        first, slopes, kept = self.maps[0].weight, self.slopes[0].flatten(1), self.kept[0]
        through = one_layer_traces(first @ b, slopes, count)
        trace = kept * a.trace() + through[0]
        if count == 1:
            return (trace,)
        (mixed,) = one_layer_traces(first @ a @ b, slopes, 1)
        return trace, kept.square() * (a @ a).trace() + 2 * kept * mixed + through[1]

    def two_layer_trace(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        r"""tr J of :math:`\eta_2 \eta_1 A + \eta_2 B D_1 W_1 + C D_2 (\eta_1 E + F D_1 W_1)`."""
        first, second = (m.weight for m in self.maps[:2])
        inner, outer = (s.flatten(1) for s in self.slopes)
        kept_first, kept_second = self.kept.unbind()
        e, f = second.split([len(a), inner.shape[1]], -1)
        (through_first,) = one_layer_traces(first @ b, inner, 1)
        (through_second,) = one_layer_traces(e @ c, outer, 1)
        return (
            kept_second * (kept_first * a.trace() + through_first)
            + kept_first * through_second
            + two_layer_trace(first @ c, f, inner, outer)
        )


def assemble(count: int, *tensors: Tensor) -> DenseJacobian:
    *slopes, kept = tensors[count:]
    return DenseJacobian(tuple(Matrix(w) for w in tensors[:count]), tuple(slopes), kept)


def split(w: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """The part of a layer's features that it was given, and the part that it added."""
    added = slopes.shape[1] * slopes.shape[2]
    old, new = w.split([w.shape[-1] - added, added], -1)
    return old, new


@dataclass(frozen=True)
class DensePerceptron(Perceptron):
    r"""The map :math:`x \mapsto W_L h_{L-1} + b_L` of a dense net.

    With :math:`h_0 = x` its layers are

    .. math:: h_i = [\eta_i h_{i-1}; \nu_i\, a(W_i h_{i-1} + b_i)] .

    Arguments:
        shares: The factors :math:`(\eta_i, \nu_i)`, with shape (L - 1, 2).
    """

    shares: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        for linear, bias, activation, kept, added in self.layers():
            x = torch.cat((kept * x, added * activation.value(linear(x, bias))), 1)
        return self.maps[-1](x, self.biases[-1])

    def linearize(self, x: Tensor) -> tuple[Tensor, DenseJacobian]:
        """The value at x and the Jacobian there, from one pass."""
        slopes = []
        for linear, bias, activation, kept, added in self.layers():
            features, slope = activation.linearize(linear(x, bias))
            x = torch.cat((kept * x, added * features), 1)
            slopes.append((added * slope).to(linear.weight.dtype))  # not that of autocast
        value = self.maps[-1](x, self.biases[-1])
        return value, DenseJacobian(self.maps, tuple(slopes), self.shares[:, 0])

    def layers(self) -> Iterator[tuple[LinearMap, Tensor, Nonlinearity, Tensor, Tensor]]:
        kept, added = (factors.unbind() for factors in self.shares.unbind(1))
        return zip(self.maps, self.biases, self.activations, kept, added)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return *super().tensors, self.shares

    @property
    def rebuild(self) -> Callable[..., DensePerceptron]:
        return partial(share, super().rebuild)


def share(rebuild: Callable[..., Any], *tensors: Tensor) -> DensePerceptron:
    shared: DensePerceptron = rebuild(*tensors[:-1], shares=tensors[-1])
    return shared
