"""Which log-determinant is measured."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CAYLEY", "RESIDUAL", "Function"]


@dataclass(frozen=True)
class Function:
    r"""The function :math:`p \log\det(I + J) + m \log\det(I - J)` of a Jacobian.

    .. math:: = \sum_{k \geq 1} \frac{s_k}{k} \operatorname{tr} J^k , \quad
              s_k = p - m \text{ for odd } k, \quad s_k = -p - m \text{ for even } k .

    Arguments:
        plus: The factor p.
        minus: The factor m.
    """

    plus: float = 1.0
    minus: float = 0.0

    def factor(self, k: int) -> float:
        """The factor s_k."""
        return self.plus - self.minus if k % 2 else -self.plus - self.minus


RESIDUAL = Function()
"""That of :math:`x + g(x)`."""

CAYLEY = Function(plus=-1.0, minus=1.0)
"""That of the Cayley transform, :math:`\\log\\det (I - J)(I + J)^{-1}`: the odd powers alone."""
