"""The invertible residual block: one branch, one solver, one estimator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from iresnet_flows.inverse import Anderson, Equation, Newton, Solution, Solver, attach
from iresnet_flows.jacobians import Jacobian
from iresnet_flows.layers.contract import Layer
from iresnet_flows.lipschitz.branches import Branch, Residual
from iresnet_flows.logdet import Estimator, Exact, LogDet, PowerSeries

__all__ = ["InvertibleResidualBlock"]

EXACT_RANK = {"train": 8, "eval": 64}
NEWTON_FEATURES = 2


class InvertibleResidualBlock(Layer):
    r"""The map :math:`y = x + g(x)`, invertible since :math:`\operatorname{Lip}(g) < 1`.

    The log-determinant :math:`\log|\det(I + J_g(x))|` is in nats, and its sign is certain: with
    :math:`L = \operatorname{Lip}(g)` it lies between :math:`d \log(1 - L)` and
    :math:`d \log(1 + L)`. The inverse is solved to a certified error, and its gradient is that of
    the exact inverse, by the implicit function theorem. The map is the same in train and eval
    mode, and the log-det is a value with its own gradient in both, sample by sample, to any order.

    Arguments:
        branch: The residual g, such as `LipschitzMLP`.
        log_det: `Exact` or `PowerSeries`. None: exact where the branch, at its narrowest, is at
            most 64 wide in eval mode and 16 in train mode, where its gradient would cost more than
            the rest; the certified series elsewhere.
        solver: How the inverse is solved. None: `Newton` for one and two dimensions, `Anderson`
            for more, with their defaults.
        memory: ``low`` keeps x and what was drawn for the backward pass, three vectors a sample
            for a series whatever its length, and evaluates g once more there. Such a log-det has
            first derivatives only, and says so when asked for more.

    Shapes:
        x and y ``(B, *event)``, context ``(B, *context_event)``, logabsdet (B,), all of one dtype.

    Raises:
        InverseNotConverged: An inverse missed its tolerance.
        ValueError: A shape does not fit, or the context is missing or not asked for.
        TypeError: The dtype is not the layer's.

    References:
        Behrmann et al., Invertible Residual Networks, 2019.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2, hidden_features=(16, 16)))
        >>> x = torch.randn(5, 2)
        >>> y, logabsdet = block(x)
        >>> restored, minus_logabsdet = block.inverse(y)
        >>> torch.allclose(restored, x, atol=1e-4)
        True
        >>> torch.allclose(minus_logabsdet, -logabsdet, atol=1e-4)
        True
    """

    def __init__(
        self,
        branch: Branch,
        log_det: Estimator | None = None,
        solver: Solver | None = None,
        memory: Literal["full", "low"] = "full",
    ) -> None:
        super().__init__()
        if memory not in ("full", "low"):
            raise ValueError(f"memory must be 'full' or 'low', got {memory!r}.")

        self.branch = branch
        self.context_features = branch.context_features
        self.log_det = log_det
        self.solver = solver
        self.memory = memory
        self.seed: int | None = None

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y = x + g(x) and log|det(I + J_g(x))|."""
        value, log_det = self.linearize(x, context)
        return x + value, log_det.value

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The x with x + g(x) = y, and minus log|det(I + J_g(x))|."""
        g = self.residual(y, context)
        equation, tensors = self.equation(g, y, context)
        x = equation.root(y, tensors, g)
        if self.memory == "low" and torch.is_grad_enabled():
            return x, -self.linearize_twice(x, context)[1].value
        return x, -self.measure(g, x)[1].value

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y = x + g(x) alone."""
        return x + self.residual(x, context)(x)

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The x with x + g(x) = y alone."""
        g = self.residual(y, context)
        equation, tensors = self.equation(g, y, context)
        return equation.root(y, tensors, g)

    def solve(self, y: Tensor, context: Tensor | None = None) -> Solution:
        """The inverse with its certified error, converged or not; the value has its gradient."""
        g = self.residual(y, context)
        equation, tensors = self.equation(g, y, context)
        solution = equation.solver.solve(g, y, g.lipschitz)
        value = attach(equation, solution.value, y, tensors)
        return Solution(value, solution.error_bound, solution.converged, solution.steps)

    def log_abs_det(self, x: Tensor, context: Tensor | None = None) -> LogDet:
        """log|det(I + J_g(x))| with its standard error and a bound of its bias."""
        return self.linearize(x, context)[1]

    @contextmanager
    def frozen(self, seed: int = 0) -> Iterator[InvertibleResidualBlock]:
        """Repeated calls within use the same draws, a function of the seed and the shape.

        The log-det of ``inverse(y)`` at ``y = block(x)`` is then minus the forward one up to the
        solver's tolerance, also with a stochastic estimator.
        """
        previous, self.seed = self.seed, seed
        try:
            yield self
        finally:
            self.seed = previous

    def residual(self, x: Tensor, context: Tensor | None) -> Residual:
        self.branch.check(x, context)
        return self.branch.at(context)

    def linearize(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, LogDet]:
        """g(x) and the log-det at x, from one pass."""
        if self.memory == "low" and torch.is_grad_enabled():
            return self.linearize_twice(x, context)
        return self.measure(self.residual(x, context), x)

    def measure(self, g: Residual, x: Tensor) -> tuple[Tensor, LogDet]:
        value, jacobian = g.linearize(x)
        estimator = self.estimator(jacobian)
        with torch.no_grad():
            draw = estimator.draw(jacobian, x, g.lipschitz, self.generator(x))
        return value, estimator.attach(draw, jacobian)

    def linearize_twice(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, LogDet]:
        """The same; the backward pass evaluates g anew, with what was drawn the first time."""
        drawn: list[Any] = []

        def evaluate(x: Tensor) -> tuple[Tensor, ...]:
            g = self.residual(x, context)
            value, jacobian = g.linearize(x)
            estimator = self.estimator(jacobian)
            if not drawn:
                with torch.no_grad():
                    drawn.append(estimator.draw(jacobian, x, g.lipschitz, self.generator(x)))
            return value, *estimator.attach(drawn[0], jacobian)

        value, *log_det = checkpoint(evaluate, x, use_reentrant=False, preserve_rng_state=False)
        value, log_det[0] = OnceDifferentiable.apply(value, log_det[0])
        return value, LogDet(*log_det)

    def estimator(self, jacobian: Jacobian) -> Estimator:
        if self.log_det is not None:
            return self.log_det
        affordable = EXACT_RANK["train" if self.training else "eval"]
        return Exact() if jacobian.rank() <= affordable else PowerSeries()

    def generator(self, x: Tensor) -> torch.Generator | None:
        return None if self.seed is None else torch.Generator(x.device).manual_seed(self.seed)

    def equation(
        self, g: Residual, y: Tensor, context: Tensor | None
    ) -> tuple[Equation, tuple[Tensor, ...]]:
        """x + g(x) = y as a function of all tensors that g depends on."""
        at = At(self.branch)
        names, tensors = zip(*at.named_parameters())
        given = () if context is None else (context,)

        def make(*values: Tensor) -> Residual:
            state = dict(zip(names, values))
            return torch.func.functional_call(at, state, values[len(names) :])

        return Equation(make, self.chosen_solver(y), g.lipschitz), (*tensors, *given)

    def chosen_solver(self, y: Tensor) -> Solver:
        if self.solver is not None:
            return self.solver
        return Newton() if math.prod(y.shape[1:]) <= NEWTON_FEATURES else Anderson()


class At(nn.Module):
    """`branch.at` as a forward, so that it can be called with other parameters."""

    def __init__(self, branch: Branch) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, context: Tensor | None = None) -> Residual:
        return self.branch.at(context)


class OnceDifferentiable(torch.autograd.Function):
    """The identity, whose gradient must not be differentiated again."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.clone() for t in tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a block with memory='low' keeps what first derivatives need, and a second one "
                "was asked for (create_graph=True or torch.func): build it with memory='full'."
            )
        return cotangents
