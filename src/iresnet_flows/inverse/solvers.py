"""Ways to step towards the solution of x + g(x) = y."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iresnet_flows.checks import check_count
from iresnet_flows.inverse.iteration import Picard, Solver, norms, per_sample
from iresnet_flows.maps.contract import Map
from iresnet_flows.maps.matrices import inverse_plus_identity

__all__ = ["Anderson", "FixedPoint", "Newton"]

CROWD = 4  # vectors for each entry: with fewer, no matrix is fitted to all of them
RIDGE = 1e-3  # of the mean variance of the entries, which keeps that fit solvable


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
        ValueError: A tolerance is negative, `max_steps` is below one, or `precision` is no dtype
            of floating point.

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
    what they explain, and is P r for the rest:

    .. math:: x \leftarrow x + P r - \sum_i (\Delta r_i^\top r)(\Delta x_i + P \Delta r_i) .

    P is the identity, or, with four vectors and more for each entry, the inverse of the matrix
    that fits :math:`x + g(x)` over all of them at the first points: what g does to all alike. So
    a vector's last digits, within the tolerance, depend on those beside it.

    A step is taken only where it contracts :math:`\|r\|` by L, else Banach's step follows, so that
    the worst case is twice that of `FixedPoint`. For a linear map, as in the gradient of an
    inverse, it is restarted GMRES, with P as preconditioner. A step costs one evaluation of g and
    a few products of vectors.

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
        # (2, m, B, *event): orthonormal dr, and the dx + P dr that a step takes out with them.
        self.pairs: Tensor | None = None
        self.mean: Tensor | None = None  # P, transposed

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        residual = super().residual(x, y)
        if self.pairs is None and self.mean is None and is_flat_crowd(x):
            self.mean = mean_step(x, y - residual)
        return residual

    def plain(self, residual: Tensor) -> Tensor:
        """P r."""
        return residual if self.mean is None else residual @ self.mean

    def step(self, residual: Tensor) -> Tensor:
        if self.pairs is None:
            return self.plain(residual)
        turns, moves = self.pairs
        return self.plain(residual) - (moves * inner(turns, residual)).sum(0)

    def learn(self, before: Tensor, step: Tensor, after: Tensor, kept: Tensor) -> None:
        turn = after - before
        pair = torch.stack((turn, step + self.plain(turn)))
        size = whole = norms(turn)
        if self.pairs is not None:
            # More than there are entries would keep the newer ones out.
            if self.pairs.shape[1] < min(self.memory, turn[0].numel()):
                pair = pair - (self.pairs * inner(self.pairs[0], turn)).sum(1)
                size = norms(pair[0])
            else:
                self.pairs = None

        # What the others explain up to a hundredth is mostly how g bends.
        fresh = size > 1e-2 * whole
        pair = torch.where(per_sample(fresh, turn), pair / per_sample(size, turn), 0.0)
        pair = pair.unsqueeze(1)
        self.pairs = pair if self.pairs is None else torch.cat((self.pairs, pair), 1)

    def take(self, rows: Tensor) -> None:
        super().take(rows)
        if self.pairs is not None:
            self.pairs = self.pairs[:, :, rows]

    def to(self, g: Map, dtype: torch.dtype) -> None:
        super().to(g, dtype)
        self.pairs = None if self.pairs is None else self.pairs.to(dtype)
        self.mean = None if self.mean is None else self.mean.to(dtype)


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

    def learn(self, before: Tensor, step: Tensor, after: Tensor, kept: Tensor) -> None:
        self.here = torch.where(per_sample(kept, self.there), self.there, self.here)

    def take(self, rows: Tensor) -> None:
        super().take(rows)
        self.here = self.here[rows]

    def to(self, g: Map, dtype: torch.dtype) -> None:
        super().to(g, dtype)
        vars(self).pop("here", None)  # the next residual is at other points


def inner(v: Tensor, w: Tensor) -> Tensor:
    """The inner products of vectors (m, B, *event), with the shape to multiply these with."""
    return (v * w).sum(tuple(range(2, v.dim())), keepdim=True)


def is_flat_crowd(x: Tensor) -> bool:
    """Whether there are many vectors for their length."""
    return x.dim() == 2 and len(x) >= CROWD * x.shape[1]


def mean_step(x: Tensor, images: Tensor) -> Tensor:
    r"""Transposed :math:`P = (I + A)^{-1}` of the fit of images by :math:`(I + A) x + c`.

    All samples share it, for they share g; rows that are not finite have no say.
    """
    dtype, whole = images.dtype, images.isfinite().all(1, keepdim=True)
    x, images = (torch.where(whole, t, 0.0).double() for t in (x, images))
    x, images = x - x.mean(0), images - images.mean(0)
    gram = x.mT @ x
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    ridge = RIDGE * gram.diagonal().mean() * eye
    fit = torch.linalg.solve_ex(x.mT @ images + ridge, gram + ridge)[0]
    return torch.where(fit.isfinite().all(), fit, eye).to(dtype)
