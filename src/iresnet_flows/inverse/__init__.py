"""Solving x + g(x) = y: how to step, when to stop, and gradients through a solve."""

from iresnet_flows.inverse.implicit import Equation
from iresnet_flows.inverse.iteration import Picard, Solver
from iresnet_flows.inverse.solutions import Solution
from iresnet_flows.inverse.solvers import Anderson, FixedPoint, Newton

__all__ = [
    "Anderson",
    "Equation",
    "FixedPoint",
    "Newton",
    "Picard",
    "Solution",
    "Solver",
]
