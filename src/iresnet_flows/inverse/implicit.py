"""Gradients through a solve, by the implicit function theorem."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from iresnet_flows.inverse.iteration import Solver
from iresnet_flows.inverse.solutions import Solution
from iresnet_flows.maps.contract import Map, require_closed
from iresnet_flows.maps.derived import Linear, Transposed
from iresnet_flows.nodes import node
from iresnet_flows.precision import full_precision
from iresnet_flows.pullback import pull_back

__all__ = ["Equation"]


@dataclass(frozen=True)
class Equation:
    r"""The equation :math:`z + h(z) = b` for a contraction h.

    Arguments:
        h: The map, which says on which tensors :math:`\theta` it depends.
        solver: Solves it.
        lipschitz: The Lipschitz constant of h, below one, a scalar tensor.

    Example:
        >>> import torch
        >>> from iresnet_flows import FixedPoint
        >>> from iresnet_flows.inverse import Equation
        >>> from iresnet_flows.maps import FunctionMap
        >>> scale = torch.tensor(0.5, requires_grad=True)
        >>> h = FunctionMap(lambda z, s: s * z.sin(), others=(scale,))
        >>> z = Equation(h, FixedPoint(), torch.tensor(0.5)).root(torch.ones(1, 1))
        >>> bool((z + scale * z.sin() - 1).abs() < 1e-5)
        True
        >>> z.sum().backward()
        >>> bool((scale.grad + z.sin() / (1 + scale * z.cos())).abs() < 1e-5)
        True
    """

    h: Map
    solver: Solver
    lipschitz: Tensor

    def root(self, rhs: Tensor) -> Tensor:
        """The solution with its gradient."""
        return self.attach(self.solver.root(self.h, rhs, self.lipschitz), rhs)

    def solve(self, rhs: Tensor) -> Solution:
        """The solution with its certified error, converged or not; the value has its gradient."""
        solution = self.solver.solve(self.h, rhs, self.lipschitz)
        return replace(solution, value=self.attach(solution.value, rhs))

    def attach(self, value: Tensor, rhs: Tensor) -> Tensor:
        r"""The solved value with the gradient of the root in b and in :math:`\theta`.

        The gradient costs one solve with the transposed Jacobian; nothing of the iteration is
        kept.
        """
        if not torch.is_grad_enabled():
            return value
        require_closed(self.h, value)
        solved: Tensor = node(
            Root, self.h.rebuild, self.solver, self.lipschitz, value, rhs, *self.h.tensors
        )
        return solved


class Root(torch.autograd.Function):
    r"""A solution z, handed through, with the gradient of an exact one.

    With :math:`u + J_h^\top u = \bar z`, the cotangents are :math:`\bar b = u` and
    :math:`\bar\theta = -(\partial_\theta h)^\top u`. The equation for u is of the same kind, so
    that this gradient has one too, to any order.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        rebuild: Callable[..., Map],
        solver: Solver,
        lipschitz: Tensor,
        z: Tensor,
        rhs: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.rebuild, ctx.solver, lipschitz, _, _, *tensors = inputs
        ctx.save_for_backward(lipschitz, output, *tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        lipschitz, z, *tensors = ctx.saved_tensors
        rebuild, dtype = ctx.rebuild, widest(z, *tensors)
        with full_precision(z):
            z = z.to(dtype)
            jacobian = rebuild(*tensors).to(dtype).linearize(z)[1]
            # A cotangent has no scale of its own, so its tolerance is relative alone.
            adjoint = Equation(Linear(Transposed(jacobian)), ctx.solver.relative(), lipschitz)
            u = in_units(adjoint.root, cotangents[0].to(dtype))
            found = pull_back(lambda *t: rebuild(*t).to(dtype)(z), tensors, -u)
        return *[None] * 4, u.to(cotangents[0].dtype), *found


def widest(*tensors: Tensor) -> torch.dtype:
    """The dtype of products of them, float32 at least."""
    found = torch.float32
    for tensor in tensors:
        found = torch.promote_types(found, tensor.dtype)
    return found


def in_units(linear: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """A linear map of rows, in units of their largest entries, which come back with its result.

    So an overflow is in the result, as of any other layer, for its author to see, and so is what
    had overflowed before.
    """
    units = rows.detach().flatten(1).abs().amax(1).reshape(-1, *[1] * (rows.dim() - 1))
    whole = units.isfinite()
    units = torch.where(whole & (units > 0), units, 1.0)
    return torch.where(whole, linear(torch.where(whole, rows / units, 0.0)) * units, math.nan)
