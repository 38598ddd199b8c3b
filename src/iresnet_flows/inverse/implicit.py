"""Gradients through a solve, by the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iresnet_flows.inverse.iteration import Solver
from iresnet_flows.maps.derived import Linear, Transposed
from iresnet_flows.maps.jacobians import Map
from iresnet_flows.nodes import node

__all__ = ["Equation", "attach"]


@dataclass(frozen=True)
class Equation:
    r"""The equation :math:`z + h(z; \theta) = b` for a contraction h.

    Arguments:
        make: Gives the map :math:`h(\cdot; \theta)` from the tensors :math:`\theta`.
        solver: Solves it.
        lipschitz: The Lipschitz constant of h in z, below one, a scalar tensor.

    Example:
        >>> import torch
        >>> from iresnet_flows import FixedPoint
        >>> from iresnet_flows.inverse import Equation
        >>> from iresnet_flows.maps import FunctionMap
        >>> def make(scale):
        ...     return FunctionMap(lambda z, s: s * z.sin(), (), (scale,))
        >>> equation = Equation(make, FixedPoint(), torch.tensor(0.5))
        >>> scale = torch.tensor(0.5, requires_grad=True)
        >>> z = equation.root(torch.ones(1, 1), (scale,))
        >>> bool((z + scale * z.sin() - 1).abs() < 1e-5)
        True
        >>> z.sum().backward()
        >>> bool((scale.grad + z.sin() / (1 + scale * z.cos())).abs() < 1e-5)
        True
    """

    make: Callable[..., Map]
    solver: Solver
    lipschitz: Tensor

    def root(self, rhs: Tensor, tensors: tuple[Tensor, ...], h: Map | None = None) -> Tensor:
        """The solution with its gradient; h is the map of these tensors, where it is at hand."""
        with torch.no_grad():
            h = self.make(*tensors) if h is None else h
            value = self.solver.root(h, rhs, self.lipschitz)
        return attach(self, value, rhs, tensors)

    def adjoint(self) -> Equation:
        r"""The equation :math:`u + J_h(z; \theta)^\top u = b`, with :math:`(z, \theta)`."""

        def make(z: Tensor, *tensors: Tensor) -> Map:
            return Linear(Transposed(self.make(*tensors).linearize(z)[1]))

        # A cotangent has no scale of its own, so its tolerance is relative alone.
        return Equation(make, self.solver.relative(), self.lipschitz)


class Root(torch.autograd.Function):
    r"""A solution z, handed through, with the gradient of an exact one.

    With :math:`u + J_h^\top u = \bar z`, the cotangents are :math:`\bar b = u` and
    :math:`\bar\theta = -(\partial_\theta h)^\top u`. The equation for u is of the same kind, so
    that this gradient has one too, to any order.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(equation: Equation, z: Tensor, rhs: Tensor, *tensors: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.equation, _, _, *tensors = inputs
        ctx.save_for_backward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        z, *tensors = ctx.saved_tensors
        u = ctx.equation.adjoint().root(cotangents[0], (z, *tensors))
        pull = torch.func.vjp(lambda *t: ctx.equation.make(*t)(z), *tensors)[1]
        return None, None, u, *(-t for t in pull(u))


def attach(equation: Equation, value: Tensor, rhs: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
    r"""The solved value with the gradient of the equation's root in rhs and the tensors.

    The gradient costs one solve with the transposed Jacobian; nothing of the iteration is kept.
    `Equation.root` solves and attaches.

    Arguments:
        equation: What the value solves.
        value: The solution z, with shape ``(B, *event)``.
        rhs: The right-hand side b.
        tensors: The tensors :math:`\theta` that the map is made of.
    """
    return node(Root, equation, value, rhs, *tensors)
