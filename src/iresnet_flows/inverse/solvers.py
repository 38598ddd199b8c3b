"""How to step towards the solution of x + g(x) = y, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from iresnet_flows.concrete import concrete
from iresnet_flows.inverse.solutions import Solution, require_converged
from iresnet_flows.jacobians import Map

__all__ = ["FixedPoint"]

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}


@dataclass(frozen=True)
class FixedPoint:
    r"""Solves :math:`x + g(x) = y` by iterating :math:`x \leftarrow y - g(x)`.

    The iteration stops on a bound for the error, not on the size of a step. If :math:`g` is
    :math:`L`-Lipschitz with :math:`L < 1`, then for the residual :math:`r = y - x - g(x)`

    .. math:: \| x - x^\star \| \leq \frac{\|r\|}{1 - L} ,

    with the rounding error of the residual added, and each step multiplies :math:`\|r\|` by at
    most :math:`L`. A sample that has converged moves no more.

    A step costs one evaluation of g. Steps are made in float64 whatever the input's dtype, since
    the residual of float32 is too coarse to certify float32; set `precision` to change that.

    Arguments:
        atol: The absolute tolerance on the error in x, in Euclidean norm. None: 1e-6 in float32,
            1e-10 in float64.
        rtol: The same, relative to the norm of x.
        max_steps: The largest number of steps.
        on_failure: ``raise`` `InverseNotConverged`, or ``warn``.
        precision: The dtype of the iteration, or None for the input's.

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

    atol: float | None = None
    rtol: float | None = None
    max_steps: int = 10_000
    on_failure: Literal["raise", "warn"] = "raise"
    precision: torch.dtype | None = torch.float64

    def __post_init__(self) -> None:
        for name in ("atol", "rtol"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value!r}.")
        if not self.max_steps >= 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps!r}.")
        if self.on_failure not in ("raise", "warn"):
            raise ValueError(f"on_failure must be 'raise' or 'warn', got {self.on_failure!r}.")

    def relative(self) -> FixedPoint:
        """The same solver with a tolerance that is relative alone."""
        return replace(self, atol=0.0)

    def tolerances(self, dtype: torch.dtype) -> tuple[float, float]:
        """atol and rtol for a result of that dtype."""
        default = TOLERANCES[dtype]
        return (
            default if self.atol is None else self.atol,
            default if self.rtol is None else self.rtol,
        )

    @torch.no_grad()
    def solve(self, g: Map, y: Tensor, lipschitz: Tensor) -> Solution:
        """Solve for each sample of y.

        Arguments:
            g: The contraction.
            y: The right-hand side, with shape ``(B, *event)``.
            lipschitz: The bound :math:`L`, a scalar.

        Returns:
            The solution, without gradient. It may have failed: see `require`.
        """
        atol, rtol = self.tolerances(y.dtype)
        dtype, y = y.dtype, y.to(self.precision or y.dtype)
        g = g.to(y.dtype)
        x = y
        steps = torch.zeros(y.shape[:1], dtype=torch.long, device=y.device)

        while True:
            residual = y - x - g(x)
            rounding = torch.finfo(x.dtype).eps * (norms(x) + norms(y))
            error = (norms(residual) + rounding) / (1 - lipschitz)
            converged = error <= atol + rtol * norms(x)
            steps = steps + 1

            done = converged | ~error.isfinite() | (steps >= self.max_steps)
            if concrete(done).all():
                break
            steps = steps - done.long()
            x = torch.where(per_sample(done, x), x, x + residual)

        cast = torch.finfo(dtype).eps * norms(x) * (dtype != x.dtype)
        return Solution(x.to(dtype), (error + cast).to(dtype), converged, steps)

    def require(self, solution: Solution, lipschitz: Tensor) -> None:
        """Raise or warn, as told, where the solution misses the tolerance."""
        atol, rtol = self.tolerances(solution.value.dtype)
        tolerance = f"atol {atol:.1e}, rtol {rtol:.1e}"
        require_converged(solution, lipschitz, tolerance, self.on_failure)


def norms(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=-1)


def per_sample(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (like.dim() - 1))
