"""Convolutional networks with all that they depend on in place, and their Jacobians."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import ClassVar

import torch
from torch import Tensor

from iresnet_flows.maps.jacobians import ChainJacobian
from iresnet_flows.maps.perceptrons import Perceptron
from iresnet_flows.maps.traces import one_layer_traces, two_layer_trace

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
        height, width = self.slopes[0].shape[-2:]
        rows, columns = (list(runs(size, closing.shape[-1] // 2)) for size in (height, width))
        # A row for each pixel, so that all pixels of a region share one product.
        pixels = [s.flatten(1, 2).permute(0, 2, 3, 1) for s in self.slopes]
        parts = [tiles(s, [n for n, _ in rows], [n for n, _ in columns]) for s in pixels]
        total = self.slopes[0].new_zeros(len(self.slopes[0]))
        for ((_, y), (_, x)), *features in zip(product(rows, columns), *parts, strict=True):
            taps = closing[..., y, x].sum((-2, -1))
            if middle:
                trace = two_layer_trace(taps, middle[0][..., 0, 0], *features)
            else:
                (trace,) = one_layer_traces(taps, features[0], 1)
            total = total + trace.sum(1)
        return (total,)


def closing_taps(first: Tensor, last: Tensor) -> Tensor:
    r"""The products :math:`K_{1, \delta} K_{3, -\delta}`, (h_1, k_2 h_2, k, k), of common taps."""
    k = min(first.shape[-1], last.shape[-1])
    return torch.einsum("jcyx,ciyx->jiyx", middle_taps(first, k), middle_taps(last, k).flip(2, 3))


def middle_taps(kernel: Tensor, size: int) -> Tensor:
    cut = (kernel.shape[-1] - size) // 2
    return kernel[..., cut : cut + size, cut : cut + size]


def tiles(pixels: Tensor, heights: list[int], widths: list[int]) -> list[Tensor]:
    """The rectangles of images (B, H, W, h), with a row for each pixel, (B, p, h)."""
    bands = pixels.split(heights, 1)
    return [tile.flatten(1, 2) for band in bands for tile in band.split(widths, 2)]


def runs(size: int, reach: int) -> Iterator[tuple[int, slice]]:
    """The runs of positions with the same taps in the image: how many, and these taps."""
    cuts = sorted({*range(min(reach, size) + 1), *range(max(0, size - reach), size + 1)})
    for start, stop in pairwise(cuts):
        taps = slice(max(0, reach - start), min(reach, size - 1 - start) + reach + 1)
        yield stop - start, taps


@dataclass(frozen=True)
class ConvolutionalPerceptron(Perceptron):
    """A perceptron of images (B, c, H, W), all of whose maps are convolutions."""

    chain: ClassVar[type[ChainJacobian]] = ConvolutionJacobian
