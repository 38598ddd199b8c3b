"""Convolutional networks with all that they depend on in place, and their Jacobians."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from iresnet_flows.maps.jacobians import ChainJacobian
from iresnet_flows.maps.perceptrons import Perceptron
from iresnet_flows.maps.traces import pair_copies

__all__ = ["ConvolutionJacobian", "ConvolutionalPerceptron"]


@dataclass(frozen=True)
class ConvolutionJacobian(ChainJacobian):
    r"""The `ChainJacobian` of a convolutional network, all of whose maps are convolutions.

    Its trace is cheap with one hidden layer, or with two of which the map between is of size 1.
    With :math:`C_\delta = K_{1, \delta} K_{3, -\delta}` and :math:`\Omega` the image,

    .. math:: \operatorname{tr} J = \sum_{q \in \Omega} d_2(q)^\top [W_2 \circ M(q)^\top] d_1(q) ,
              \quad M(q) = \sum_{\delta :\, q + \delta \in \Omega} C_\delta ,

    where M(q) is the same wherever the same taps lie in the image: nine regions for a kernel of
    size 3. Costs a map of size 1 and the products :math:`C_\delta`, about one to two products
    with J.
    """

    def known_traces(self, count: int) -> int:
        sizes = [m.weight.shape[-1] for m in self.maps]
        return min(count, int(len(sizes) == 2 or (len(sizes) == 3 and sizes[1] == 1)))

    def traces(self, count: int) -> tuple[Tensor, ...]:
        if not self.known_traces(count):
            return ()

        first, *middle, last = (m.weight for m in self.maps)
        closing = closing_taps(first, last)
        batch, *_, height, width = self.slopes[0].shape
        total = self.slopes[0].new_zeros(batch)
        for (rows, y), (columns, x) in regions(height, width, closing.shape[-1] // 2):
            taps = closing[..., y, x].sum((-2, -1))
            features = [s[..., rows, columns].flatten(1, 2).flatten(2) for s in self.slopes]
            if middle:
                inner, outer = features
                kernel = pair_copies(taps, middle[0][..., 0, 0])
                total = total + ((kernel @ inner) * outer).sum((1, 2))
            else:
                diagonal = taps.unflatten(-1, (-1, len(taps))).diagonal(dim1=0, dim2=2).flatten()
                total = total + features[0].sum(-1) @ diagonal
        return (total,)


def closing_taps(first: Tensor, last: Tensor) -> Tensor:
    r"""The products :math:`K_{1, \delta} K_{3, -\delta}`, (h_1, k_2 h_2, k, k), of common taps."""
    k = min(first.shape[-1], last.shape[-1])
    return torch.einsum("jcyx,ciyx->jiyx", middle_taps(first, k), middle_taps(last, k).flip(2, 3))


def middle_taps(kernel: Tensor, size: int) -> Tensor:
    cut = (kernel.shape[-1] - size) // 2
    return kernel[..., cut : cut + size, cut : cut + size]


def regions(
    height: int, width: int, reach: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """The rectangles in which the same taps lie in the image: rows and columns, each with taps."""
    columns = list(runs(width, reach))
    for rows in runs(height, reach):
        for each in columns:
            yield rows, each


def runs(size: int, reach: int) -> Iterator[tuple[slice, slice]]:
    """The runs of positions along an axis with the same taps in the image, and these taps."""
    cuts = sorted({*range(min(reach, size) + 1), *range(max(0, size - reach), size + 1)})
    for start, stop in pairwise(cuts):
        yield (
            slice(start, stop),
            slice(max(0, reach - start), min(reach, size - 1 - start) + reach + 1),
        )


@dataclass(frozen=True)
class ConvolutionalPerceptron(Perceptron):
    """A perceptron of images (B, c, H, W), all of whose maps are convolutions."""

    chain: ClassVar[type[ChainJacobian]] = ConvolutionJacobian
