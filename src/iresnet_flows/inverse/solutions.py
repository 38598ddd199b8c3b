"""What a solve returns, and what is said when it failed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from torch import Tensor

from iresnet_flows.concrete import concrete
from iresnet_flows.errors import InverseNotConverged, InverseNotConvergedWarning

__all__ = ["Solution", "require_converged"]


@dataclass(frozen=True)
class Solution:
    r"""The solution of :math:`x + g(x) = y`, sample by sample.

    Arguments:
        value: The solution :math:`x`, with shape ``(B, *event)``.
        error_bound: A bound of the distance from the exact solution, in norm, with shape (B,).
        converged: Whether that bound, but for the last rounding of x to its dtype, meets the
            tolerance, with shape (B,).
        steps: The evaluations of g that the sample needed, with shape (B,).

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2))
        >>> x = torch.randn(5, 2)
        >>> solution = block.solve(block.transform(x))
        >>> error = (solution.value - x).norm(dim=-1)
        >>> bool((error <= solution.error_bound + 1e-6).all())  # of the rounding of y
        True
    """

    value: Tensor
    error_bound: Tensor
    converged: Tensor
    steps: Tensor


def require_converged(
    solution: Solution, lipschitz: Tensor, tolerance: str, max_steps: int, on_failure: str
) -> None:
    """Raise, or warn, unless every sample converged."""
    converged = concrete(solution.converged).flatten()
    if converged.all():
        return

    error_bound = concrete(solution.error_bound).flatten()
    failed, total = int((~converged).sum()), len(converged)
    if not error_bound.isfinite().all():
        rows = (~error_bound.isfinite()).nonzero().flatten().tolist()
        message = (
            f"The inverse met NaN or infinite values in {len(rows)} of {total} samples (the first "
            f"is sample {rows[0]}): check the input and the parameters of the layer."
        )
    else:
        steps = concrete(solution.steps).flatten()[~converged]
        remedy = (
            f"Each step multiplies the error by at most {float(concrete(lipschitz).max()):.3g}: "
            "raise max_steps, loosen atol or rtol, or build the branch with a smaller lipschitz."
            if steps.max() >= max_steps
            else "Rounding lets no further step gain: loosen atol or rtol, or raise precision."
        )
        message = (
            f"The inverse stopped after {int(steps.max())} steps with {failed} of {total} samples "
            f"above tolerance (largest error bound {error_bound.max():.1e}, {tolerance}). {remedy}"
        )

    if on_failure == "raise":
        raise InverseNotConverged(message)
    warnings.warn(message, InverseNotConvergedWarning, stacklevel=3)
