"""What blocks that are made from a bounded branch share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from iresnet_flows.blocks.recomputed import recomputed
from iresnet_flows.checks import check_count, check_kind
from iresnet_flows.inverse import Anderson, Equation, Solver
from iresnet_flows.layers.contract import Layer
from iresnet_flows.lipschitz.branches import Branch, Residual
from iresnet_flows.logdet import Estimator, Exact, LogDet, RussianRoulette
from iresnet_flows.logdet.functions import Function
from iresnet_flows.maps.contract import Map, require_closed
from iresnet_flows.maps.derived import Negative
from iresnet_flows.maps.jacobians import Jacobian

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BranchedLayer", "uncompiled"]

EXACT_RANK = {"train": 8, "eval": 64}
SERIES = {"train": RussianRoulette(), "eval": RussianRoulette(probes=4)}
SOLVER = Anderson()
BRANCHES = (
    "a branch such as LipschitzMLP, or a module wrapped as ClaimedBranch(module, lipschitz=)"
)
ESTIMATORS = "Exact(), PowerSeries() or RussianRoulette()"
SOLVERS = "Anderson(), FixedPoint() or Newton()"

Side = TypeVar("Side", bound=Callable[..., Any])


def uncompiled(side: Side) -> Side:
    """Marks what runs as without a compiler, such as a solve, which ends by its values."""

    @wraps(side)
    def run(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            # Marking it at once would import the compiler with the package.
            return torch.compiler.disable(side)(*args, **kwargs)
        return side(*args, **kwargs)

    return cast("Side", run)


class BranchedLayer(Layer):
    """A layer made from a branch g, an estimator of log-determinants and a solver.

    Arguments:
        branch: The branch g.
        log_det: The estimator, or None for the best one at the branch's width and the mode.
        solver: The solver, or None for `Anderson` with its defaults.
        memory: ``full``, or ``low`` to evaluate g once more in the backward pass.

    Attributes:
        function: Which log-determinant of g's Jacobian the layer has.
    """

    function: Function

    def __init__(
        self,
        branch: Branch,
        log_det: Estimator | None = None,
        solver: Solver | None = None,
        memory: Literal["full", "low"] = "full",
    ) -> None:
        super().__init__()
        self.branch = branch
        self.context_features = branch.context_features
        self.log_det = log_det
        self.solver = solver
        self.memory = memory
        self.seeds: tuple[list[int], ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a part that is none of its kind, at the start and whenever it is set."""
        match name:
            case "branch":
                check_kind("branch", value, Branch, BRANCHES)
            case "log_det" if value is not None:
                check_kind("log_det", value, Estimator, ESTIMATORS)
            case "solver" if value is not None:
                check_kind("solver", value, Solver, SOLVERS)
            case "memory" if value not in ("full", "low"):
                raise ValueError(f"memory must be 'full' or 'low', got {value!r}.")
        super().__setattr__(name, value)

    @contextmanager
    def frozen(self, seed: int = 0) -> Iterator[Self]:
        """Repeated calls within use the same draws, a function of the seed and the shape.

        The log-det of ``inverse(y)`` at ``y = block(x)`` is then minus the forward one up to the
        solver's tolerance, also with a stochastic estimator.
        """
        check_count("seed", seed, least=0)
        own = [int(seed)]
        self.seeds = (*self.seeds, own)
        try:
            yield self
        finally:  # in whatever order they are left, by several threads say
            self.seeds = tuple(other for other in self.seeds if other is not own)

    @property
    def seed(self) -> int | None:
        """That of the `frozen` entered last; None outside."""
        return self.seeds[-1][0] if self.seeds else None

    def residual(self, x: Tensor, context: Tensor | None) -> Residual:
        """The branch with its context in place, for points like x."""
        self.branch.check(x, context)
        return self.branch.at(context)

    def equation(self, g: Residual, sign: Literal[1, -1] = 1) -> Equation:
        """The equation w + g(w) = b, or w - g(w) = b."""
        h: Map = g if sign == 1 else Negative(g)
        return Equation(h, self.solver or SOLVER, g.lipschitz)

    def measure(self, g: Residual, x: Tensor) -> tuple[Tensor, LogDet]:
        """g(x) and the log-det at x, from one pass."""
        if self.memory == "low" and torch.is_grad_enabled():
            return self.measure_twice(g, x)
        value, jacobian = g.linearize(x)
        return value, self.estimate(g, jacobian, x)

    def estimate(self, g: Residual, jacobian: Jacobian, x: Tensor) -> LogDet:
        """The log-det at x, from the Jacobian there."""
        estimator = self.estimator(jacobian)
        return estimator.attach(self.draw(estimator, g.lipschitz, jacobian, x), jacobian)

    @uncompiled
    def measure_twice(self, g: Residual, x: Tensor) -> tuple[Tensor, LogDet]:
        """The same; the backward pass evaluates g anew, with what was drawn the first time."""
        require_closed(g, x)
        rebuild, lipschitz = g.rebuild, g.lipschitz
        drawn: list[tuple[Estimator, Any]] = []

        def evaluate(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            value, jacobian = rebuild(*tensors).linearize(x)
            if not drawn:
                estimator = self.estimator(jacobian)
                drawn.append((estimator, self.draw(estimator, lipschitz, jacobian, x)))
            estimator, draw = drawn[0]
            return value, *estimator.attach(draw, jacobian)

        value, *log_det = recomputed(evaluate, x, *g.tensors)
        return value, LogDet(*log_det)

    def draw(self, estimator: Estimator, lipschitz: Tensor, jacobian: Jacobian, x: Tensor) -> Any:
        generator = None
        seed = self.seed
        if seed is not None:
            generator = torch.Generator(x.device).manual_seed(seed)
        with torch.no_grad():
            return estimator.draw(jacobian, x, lipschitz, generator, self.function)

    def estimator(self, jacobian: Jacobian) -> Estimator:
        if self.log_det is not None:
            return self.log_det
        mode = "train" if self.training else "eval"
        return Exact() if jacobian.rank() <= EXACT_RANK[mode] else SERIES[mode]
