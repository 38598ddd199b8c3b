"""Linear maps with a weight: what stands between the activations of a branch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

__all__ = ["Convolution", "LinearMap", "Matrix"]


@dataclass(frozen=True)
class LinearMap(ABC):
    """A linear map of vectors ``(*, *event)``.

    Arguments:
        weight: What it is made of.
    """

    weight: Tensor

    @abstractmethod
    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """The map of x, and a bias if there is one."""

    @abstractmethod
    def transposed(self, w: Tensor) -> Tensor:
        """The transposed map of w."""

    @abstractmethod
    def cotangent(self, w: Tensor, v: Tensor) -> Tensor:
        r"""The gradient of :math:`\sum w^\top W v` in the weight."""


@dataclass(frozen=True)
class Matrix(LinearMap):
    r"""The map :math:`x \mapsto W x`.

    Arguments:
        weight: The matrix, with shape (m, n).
    """

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if bias is None or bias.dim() == 1:
            return F.linear(x, self.weight, bias)
        return F.linear(x, self.weight) + bias

    def transposed(self, w: Tensor) -> Tensor:
        return F.linear(w, self.weight.mT)

    def cotangent(self, w: Tensor, v: Tensor) -> Tensor:
        return w.flatten(0, -2).mT @ v.flatten(0, -2)


@dataclass(frozen=True)
class Convolution(LinearMap):
    """The convolution with a kernel of odd size, zero padding and stride one.

    Arguments:
        weight: The kernel, with shape (m, n, k, k).
    """

    @property
    def padding(self) -> int:
        return self.weight.shape[-1] // 2

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        images = x.flatten(0, -4)
        y = F.conv2d(images, self.weight, padding=self.padding).unflatten(0, x.shape[:-3])
        return y if bias is None else y + bias[..., None, None]

    def transposed(self, w: Tensor) -> Tensor:
        images = w.flatten(0, -4)
        v = F.conv_transpose2d(images, self.weight, padding=self.padding)
        return v.unflatten(0, w.shape[:-3])

    def cotangent(self, w: Tensor, v: Tensor) -> Tensor:
        images, cotangents = (t.flatten(0, -4) for t in (v, w))
        if not len(images):
            return torch.zeros_like(self.weight)
        return conv2d_weight(images, self.weight.shape, cotangents, padding=self.padding)
