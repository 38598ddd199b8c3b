"""The loop that every solver shares: what a step may do, and when a sample is done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from iresnet_flows.checks import check_count, check_number
from iresnet_flows.concrete import concrete, is_wrapped
from iresnet_flows.inverse.solutions import Solution, require_converged
from iresnet_flows.maps.contract import Map

__all__ = ["Picard", "Solver", "State", "norms", "per_sample"]

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}

EXPECTED = 0.5
"""The share of the tolerance that a step is expected to reach where it is not judged yet."""


class State(NamedTuple):
    """Where each sample is. All have the batch in front.

    Arguments:
        y: The right-hand sides.
        x: The best points so far.
        residual: y - x - g(x) there.
        size: The norms of these.
        steps: The evaluations of g.
        gain: The factor by which the last step that was kept has changed these.
        cautious: Whether the next step is Banach's, because the last one was not kept.
        stalled: Whether Banach's step was not kept either: rounding allows no further gain.
        reach: The norms of y.
    """

    y: Tensor
    x: Tensor
    residual: Tensor
    size: Tensor
    steps: Tensor
    gain: Tensor
    cautious: Tensor
    stalled: Tensor
    reach: Tensor

    def take(self, rows: Tensor) -> State:
        return State(*(t[rows] for t in self))

    def put(self, rows: Tensor, part: State) -> State:
        return State(*(t.index_copy(0, rows, p) for t, p in zip(self, part, strict=True)))


class Picard:
    """Banach's step, and what any other way to step has to have; `Solver` has an example.

    Arguments:
        g: The contraction.
    """

    def __init__(self, g: Map) -> None:
        self.g = g

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """y - x - g(x)."""
        return y - x - self.g(x)

    def step(self, residual: Tensor) -> Tensor:
        """The step to try from the best points, whose residuals are given."""
        return residual

    def learn(self, before: Tensor, step: Tensor, after: Tensor, kept: Tensor) -> None:
        """Learn from the residuals before and after a step; kept says which samples keep it."""

    def take(self, rows: Tensor) -> None:
        """Go on with some of the rows."""
        self.g = self.g.take(rows)

    def to(self, g: Map, dtype: torch.dtype) -> None:
        """Go on in another dtype, in which the map is given."""
        self.g = g


@dataclass(frozen=True)
class Solver(ABC):
    """What solves x + g(x) = y for any contraction g; `FixedPoint` has its arguments.

    A solver of your own proposes steps, and the loop keeps them only where they contract the
    residual by L, so that the guarantee is that of Banach's iteration.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> from iresnet_flows.inverse import Picard, Solver
        >>> class Halved(Picard):
        ...     def step(self, residual):
        ...         return residual / 2
        >>> class Careful(Solver):
        ...     def stepper(self, g):
        ...         return Halved(g)
        >>> block = InvertibleResidualBlock(LipschitzMLP(2), solver=Careful())
        >>> bool(block.solve(torch.ones(1, 2)).converged.all())
        True
    """

    atol: float | None = None
    rtol: float | None = None
    max_steps: int = 10_000
    on_failure: Literal["raise", "warn"] = "raise"
    precision: torch.dtype | None = torch.float64

    def __post_init__(self) -> None:
        for name in ("atol", "rtol"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value)
                if not value >= 0:
                    raise ValueError(f"{name} must be at least 0, got {value!r}.")
        check_count("max_steps", self.max_steps)
        if self.on_failure not in ("raise", "warn"):
            raise ValueError(f"on_failure must be 'raise' or 'warn', got {self.on_failure!r}.")
        if self.precision not in (None, *TOLERANCES):
            allowed = ", ".join(map(str, TOLERANCES))
            raise ValueError(f"precision must be {allowed} or None, got {self.precision!r}.")

    @abstractmethod
    def stepper(self, g: Map) -> Picard:
        """What proposes the steps."""

    def relative(self) -> Solver:
        """The same solver with a tolerance that is relative alone."""
        return replace(self, atol=0.0, rtol=self.rtol or None)

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
            The solution, without gradient. It may have failed, see `require`.
        """
        precise = self.precision or y.dtype
        x, steps = y, torch.zeros(y.shape[:1], dtype=torch.long, device=y.device)
        loop = Loop(self.stepper(g.to(y.dtype)), lipschitz, self.tolerances(y.dtype))
        if torch.finfo(y.dtype).eps > torch.finfo(precise).eps and self.max_steps > 1:
            # Few digits are cheaper for as long as they gain; one evaluation is left to judge.
            x, steps = loop.approach(y, x, steps, self.max_steps - 1)

        loop.stepper.to(g.to(precise), precise)
        state = loop.iterate(y.to(precise), x.to(precise), steps, self.max_steps)
        length, error = loop.judge(state)
        converged = error <= loop.tolerance(length)
        cast = torch.finfo(y.dtype).eps * length * (y.dtype != precise)
        found = state.x.clone() if state.x is y else state.x.to(y.dtype)
        return Solution(found, (error + cast).to(y.dtype), converged, state.steps)

    def root(self, g: Map, y: Tensor, lipschitz: Tensor) -> Tensor:
        """The solution without gradient; fails as told where the tolerance is missed."""
        solution = self.solve(g, y, lipschitz)
        self.require(solution, lipschitz)
        return solution.value

    def require(self, solution: Solution, lipschitz: Tensor) -> None:
        """Raise or warn, as told, where the solution misses the tolerance."""
        atol, rtol = self.tolerances(solution.value.dtype)
        tolerance = f"atol {atol:.1e}, rtol {rtol:.1e}"
        require_converged(solution, lipschitz, tolerance, self.max_steps, self.on_failure)


@dataclass
class Loop:
    r"""The safeguarded iteration in one precision.

    A step that is tried must contract the residual by L, as Banach's :math:`x + r` always does;
    one that does not is followed by Banach's, from the best point.

    Arguments:
        stepper: Proposes the steps.
        lipschitz: The bound L.
        tolerances: The absolute and the relative one.
    """

    stepper: Picard
    lipschitz: Tensor
    tolerances: tuple[float, float]

    def __post_init__(self) -> None:
        self.gap = 1 - self.lipschitz

    def approach(
        self, y: Tensor, x: Tensor, steps: Tensor, max_steps: int
    ) -> tuple[Tensor, Tensor]:
        """Points that, for most samples, one more evaluation is expected to find good enough.

        Returns:
            The points, which are a step further than the last evaluation, and the evaluations.
        """
        state = self.start(y, x, steps)
        while True:
            going = self.going(state, max_steps, EXPECTED * self.gap / state.gain)
            left = concrete(going)
            count = int(left.sum())
            if 2 * count <= left.numel():
                break
            state = self.advance(state, going, everyone=count == left.numel())
        step = self.stepper.step(state.residual)
        # No further than the solution can be, and from where no rounding stands in the way.
        fair = (norms(step) * self.gap <= state.size) & ~state.stalled
        return torch.where(per_sample(fair, step), state.x + step, state.x), state.steps

    def iterate(self, y: Tensor, x: Tensor, steps: Tensor, max_steps: int) -> State:
        """The best points from x on; the evaluations in steps count towards max_steps."""
        state = self.start(y, x, steps)
        whole, rows = state, None
        while True:
            going = self.going(state, max_steps, self.gap)
            left = concrete(going)
            count = int(left.sum())
            if not count:
                return state if rows is None else whole.put(rows, state)
            everyone = count == left.numel()
            # Each selection is a copy, so rows leave once half are done; torch.func hides them.
            if 2 * count <= len(left) and not is_wrapped(going):
                keep = left.nonzero().flatten()
                whole = state if rows is None else whole.put(rows, state)
                rows = keep if rows is None else rows[keep]
                state, going = state.take(keep), going[keep]
                self.stepper.take(keep)
                everyone = True
            state = self.advance(state, going, everyone)

    def start(self, y: Tensor, x: Tensor, steps: Tensor) -> State:
        residual = self.stepper.residual(x, y)
        size, no = norms(residual), torch.zeros_like(steps, dtype=torch.bool)
        return State(y, x, residual, size, steps + 1, torch.ones_like(size), no, no, norms(y))

    def advance(self, state: State, going: Tensor, everyone: bool) -> State:
        """The state after one more evaluation of g for the samples that go on, or for everyone."""
        y, x, residual, size, steps, gain, cautious, stalled, _ = state
        step = self.stepper.step(residual)
        if step is residual:
            cautious, limit = going, size
        else:
            step = torch.where(per_sample(cautious, x), residual, step)
            limit = torch.where(cautious, size, self.lipschitz * size)
        if not everyone:
            step = torch.where(per_sample(going, x), step, torch.zeros_like(step))
        trial = x + step

        found = self.stepper.residual(trial, y)
        found_size = norms(found)
        kept = going & (found_size < limit)
        self.stepper.learn(residual, step, found, kept)
        if everyone and bool(concrete(kept).all()):  # nearly always
            return state._replace(
                x=trial,
                residual=found,
                size=found_size,
                steps=steps + 1,
                gain=found_size / size,
                cautious=torch.zeros_like(kept),
            )

        failed = going ^ kept
        here = per_sample(kept, x)
        return state._replace(
            x=torch.where(here, trial, x),
            residual=torch.where(here, found, residual),
            size=torch.where(kept, found_size, size),
            steps=steps + going,
            gain=torch.where(kept, found_size / size, gain),
            cautious=failed,
            stalled=stalled | (failed & cautious),  # Banach's step gains too, but for rounding
        )

    def going(self, state: State, max_steps: int, gap: Tensor) -> Tensor:
        """Which samples can and must be improved; the bound of an error is residual / gap."""
        length, rounding = self.scales(state)
        enough = torch.maximum(gap * self.tolerance(length) - rounding, rounding)
        able = (state.size < torch.inf) & (state.steps < max_steps) & ~state.stalled
        return (state.size > enough) & able

    def judge(self, state: State) -> tuple[Tensor, Tensor]:
        """The norms of the points, and bounds of their errors."""
        length, rounding = self.scales(state)
        return length, (state.size + rounding) / self.gap

    def scales(self, state: State) -> tuple[Tensor, Tensor]:
        """The norms of the points, and what the rounding of their residuals is."""
        length = norms(state.x)
        return length, torch.finfo(state.x.dtype).eps * (length + state.reach)

    def tolerance(self, length: Tensor) -> Tensor:
        """What the error of a solution of that norm may be."""
        atol, rtol = self.tolerances
        return atol + rtol * length


def norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=-1)


def per_sample(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (like.dim() - 1))
