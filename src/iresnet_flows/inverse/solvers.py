"""Ways to step towards the solution of x + g(x) = y."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iresnet_flows.checks import check_count
from iresnet_flows.inverse.iteration import Picard, Solver, State, norms, per_sample
from iresnet_flows.maps.jacobians import Map
from iresnet_flows.maps.matrices import inverse_plus_identity

__all__ = ["Anderson", "FixedPoint", "Newton"]


@dataclass(frozen=True)
class FixedPoint(Solver):
    r"""Solves :math:`x + g(x) = y` by Banach's iteration, :math:`x \leftarrow x + r`.

    With the residual :math:`r = y - x - g(x)` that is :math:`x \leftarrow y - g(x)`. As every
    solver here, it stops on a bound for the error, not on the size of a step. If :math:`g` is
    :math:`L`-Lipschitz with :math:`L < 1`, then

    .. math:: \| x - x^\star \| \leq \frac{\|r\|}{1 - L} ,

    with the rounding error of the residual added, and each step multiplies :math:`\|r\|` by at
    most :math:`L`. A sample that has converged moves no more, and leaves the work.

    A step costs one evaluation of g. Steps are made in the input's dtype for as long as its
    rounding lets them gain, and then in float64, since the residual of float32 is too coarse to
    certify float32; set `precision` to change that.

    Arguments:
        atol: The absolute tolerance on the error in x, in Euclidean norm. None: 1e-6 in float32,
            1e-10 in float64.
        rtol: The same, relative to the norm of x.
        max_steps: The largest number of evaluations of g.
        on_failure: ``raise`` `InverseNotConverged`, or ``warn``.
        precision: The dtype of the last steps, or None for the input's.

    Raises:
        ValueError: A tolerance is negative or `max_steps` is below one.

    References:
        Behrmann et al., Invertible Residual Networks, 2019, Algorithm 1 (the iteration).

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2), solver=FixedPoint(atol=1e-3))
        >>> solution = block.solve(torch.ones(1, 2))
        >>> bool(solution.converged.all())
        True
    """

    def stepper(self, g: Map) -> Picard:
        return Picard(g)


@dataclass(frozen=True)
class Anderson(Solver):
    r"""`FixedPoint`, accelerated by what the last evaluations of g told.

    Differences :math:`\Delta r_i` of the residuals at the points seen are made orthonormal, and
    those :math:`\Delta x_i` of the points follow. The step from x, with residual r, takes out
    what they explain, and is Banach's for the rest:

    .. math:: x \leftarrow x + r - \sum_i (\Delta r_i^\top r)(\Delta x_i + \Delta r_i) .

    It is taken only where it contracts :math:`\|r\|` by L, else Banach's step follows, so that
    the worst case is twice that of `FixedPoint`. For a linear map, as in the gradient of an
    inverse, it is restarted GMRES. A step costs one evaluation of g and a few products of vectors.

    Arguments:
        memory: How many differences are kept before it starts afresh.

    The other arguments, and what it raises, are those of `FixedPoint`.

    References:
        Walker & Ni, Anderson Acceleration for Fixed-Point Iterations, 2011.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(8), solver=Anderson(max_steps=100))
        >>> bool(block.solve(torch.ones(1, 8)).converged.all())
        True
    """

    memory: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("memory", self.memory)

    def stepper(self, g: Map) -> Picard:
        return Secants(g, self.memory)


@dataclass(frozen=True)
class Newton(Solver):
    r"""Newton's method, :math:`x \leftarrow x + (I + J)^{-1} r`, with the safeguard of `Anderson`.

    A step costs an evaluation of g with its Jacobian, that is d products, and :math:`O(d^3)`;
    few are needed. The gradient of an inverse takes one. For any d where J is diagonal, as that of
    `LipschitzElementwise`: a step then costs one product.

    The arguments, and what it raises, are those of `FixedPoint`.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2, lipschitz=0.99), solver=Newton())
        >>> bool(block.solve(torch.ones(1, 2)).steps < 10)
        True
    """

    def stepper(self, g: Map) -> Picard:
        return Tangents(g)


class Secants(Picard):
    """The steps of `Anderson`."""

    def __init__(self, g: Map, memory: int) -> None:
        super().__init__(g)
        self.memory = memory
        # (2, m, B, *event): orthonormal dr, and the dx + dr that a step takes out with them.
        self.pairs: Tensor | None = None

    def step(self, residual: Tensor) -> Tensor:
        if self.pairs is None:
            return residual
        turns, moves = self.pairs
        return residual - (moves * inner(turns, residual)).sum(0)

    def learn(self, state: State, trial: Tensor, residual: Tensor, accepted: Tensor) -> None:
        turn = residual - state.residual
        pair = torch.stack((turn, trial - state.x + turn))
        whole = norms(turn)
        if self.pairs is not None and self.pairs.shape[1] < self.memory:
            pair = pair - (self.pairs * inner(self.pairs[0], turn)).sum(1)
        else:
            self.pairs = None

        # What the others explain up to a hundredth is mostly how g bends.
        size = norms(pair[0])
        fresh = (size > 1e-2 * whole) & (size < torch.inf)
        pair = torch.where(per_sample(fresh, turn), pair / per_sample(size, turn), 0.0)
        pair = pair.unsqueeze(1)
        self.pairs = pair if self.pairs is None else torch.cat((self.pairs, pair), 1)

    def take(self, rows: Tensor) -> None:
        super().take(rows)
        if self.pairs is not None:
            self.pairs = self.pairs[:, :, rows]


class Tangents(Picard):
    """The steps of `Newton`."""

    here: Tensor
    there: Tensor

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        value, jacobian = self.g.linearize(x)
        self.there = jacobian.blocks()
        if not hasattr(self, "here"):
            self.here = self.there
        return y - x - value

    def step(self, residual: Tensor) -> Tensor:
        inverse = inverse_plus_identity(self.here)
        columns = residual.reshape(*inverse.shape[:-1], 1)
        return (inverse @ columns).reshape(residual.shape)

    def learn(self, state: State, trial: Tensor, residual: Tensor, accepted: Tensor) -> None:
        self.here = torch.where(per_sample(accepted, self.there), self.there, self.here)

    def take(self, rows: Tensor) -> None:
        super().take(rows)
        self.here = self.here[rows]


def inner(v: Tensor, w: Tensor) -> Tensor:
    """The inner products of vectors (m, B, *event), with the shape to multiply these with."""
    products = (v * w).flatten(2).sum(-1)
    return products.reshape(*products.shape, *[1] * (v.dim() - 2))
