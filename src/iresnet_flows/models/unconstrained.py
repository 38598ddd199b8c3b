"""Residual blocks that nothing bounds: what is compared with those that always invert."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from iresnet_flows.checks import check_count, check_kernel_sizes, check_tensor
from iresnet_flows.errors import InverseNotAvailable
from iresnet_flows.layers import Layer
from iresnet_flows.lipschitz import Activation
from iresnet_flows.lipschitz.activations import make_activations
from iresnet_flows.maps.perceptrons import weight_shapes
from iresnet_flows.pullback import outside

__all__ = ["IteratedBlock", "UnconstrainedBlock", "convolutions"]


class UnconstrainedBlock(Layer):
    r"""The map :math:`y = x + g(x)` of any g, invertible or not.

    `forward` writes out the Jacobian of each sample for its log-det, d backward passes.

    Arguments:
        g: The residual, a module that keeps the shape and treats each sample alone.

    Shapes:
        x and y ``(B, *event)``, logabsdet (B,) in nats.

    Raises:
        InverseNotAvailable: The inverse is asked for, which nothing guarantees.

    Example:
        >>> import torch
        >>> block = UnconstrainedBlock(torch.nn.Linear(2, 2, bias=False))
        >>> _ = torch.nn.init.eye_(block.g.weight)
        >>> block.transform(torch.ones(1, 2))
        tensor([[2., 2.]], grad_fn=<AddBackward0>)
    """

    def __init__(self, g: nn.Module) -> None:
        super().__init__()
        self.g = g

    @property
    def sign(self) -> int:
        raise NotImplementedError("an unconstrained block may have a determinant of either sign.")

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = self.transform(x, context)
        if not len(x):
            return y, x.new_zeros(0)

        def one(x: Tensor) -> Tensor:
            return (x + self.g(x.unsqueeze(0))[0]).flatten()

        jacobian: Tensor = outside(torch.func.vmap(torch.func.jacrev(one)), x)
        return y, torch.linalg.slogdet(jacobian.flatten(2))[1]

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raise InverseNotAvailable(
            "x + g(x) of an unconstrained g need not have an inverse: use IteratedBlock to see "
            "where a fixed-point iteration ends, or InvertibleResidualBlock with a bounded branch."
        )

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        check_tensor("x", x)
        return x + self.residual(x)

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.inverse(y, context)[0]

    def residual(self, x: Tensor) -> Tensor:
        value: Tensor = self.g(x)
        return value


class IteratedBlock(UnconstrainedBlock):
    r"""An `UnconstrainedBlock` that shows what a fixed-point iteration makes of its inverse.

    `invert` iterates :math:`x \leftarrow y - g(x)` from y, a given number of times, and returns
    where it is. That is near the solution where g is a contraction, and otherwise may be
    anywhere; nothing is claimed of it, so that `inverse` is refused still. It is made to study
    that, and not for flows: a density that is taken through it is none.

    Arguments:
        g: The residual, a module that keeps the shape and treats each sample alone.
        steps: How often `invert` evaluates g.

    Raises:
        InverseNotAvailable: The log-det of the inverse is asked for.

    References:
        Behrmann et al., Invertible Residual Networks, 2019 (Figure 3).

    Example:
        >>> import torch
        >>> block = IteratedBlock(torch.nn.Linear(2, 2, bias=False))
        >>> _ = torch.nn.init.constant_(block.g.weight, 0.1)
        >>> block.invert(block.transform(torch.ones(1, 2))).round(decimals=4)
        tensor([[1., 1.]], grad_fn=<RoundBackward1>)
    """

    def __init__(self, g: nn.Module, steps: int = 100) -> None:
        super().__init__(g)
        check_count("steps", steps)
        self.steps = steps

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Where the iteration is after so many steps."""
        check_tensor("y", y)
        x = y
        for _ in range(self.steps):
            x = y - self.residual(x)
        return x

    def extra_repr(self) -> str:
        return f"steps={self.steps}"


def convolutions(
    channels: int,
    hidden_channels: Sequence[int],
    kernel_sizes: Sequence[int],
    activation: str | Activation = "elu",
) -> nn.Module:
    """The plain twin of `LipschitzConvNet`: the same convolutions, with torch's weights.

    Arguments:
        channels: The channels of x.
        hidden_channels: Those of the hidden layers.
        kernel_sizes: The odd size of each kernel.
        activation: A name or an `Activation`.

    Raises:
        ValueError: A number is out of range.
    """
    activations = make_activations(hidden_channels, activation, "hidden_channels")
    check_kernel_sizes(kernel_sizes, len(activations) + 1)
    shapes = weight_shapes(channels, hidden_channels, [a.copies for a in activations])
    parts: list[nn.Module] = []
    for (wide, narrow), size, a in zip(shapes, kernel_sizes, [*activations, None], strict=True):
        parts.append(nn.Conv2d(narrow, wide, size, padding=size // 2))
        parts += [] if a is None else [a]
    return nn.Sequential(*parts)
