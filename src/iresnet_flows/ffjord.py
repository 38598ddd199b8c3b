"""FFJORD: a continuous normalizing flow as a layer, on torchdiffeq."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from iresnet_flows.checks import check_context, check_count, check_input
from iresnet_flows.concrete import concrete
from iresnet_flows.errors import IntegrationFailed, MissingExtra
from iresnet_flows.layers.contract import Layer
from iresnet_flows.lipschitz import Activation
from iresnet_flows.lipschitz.activations import make_activations
from iresnet_flows.maps.jacobians import Jacobian
from iresnet_flows.maps.linear import Matrix
from iresnet_flows.maps.perceptrons import Perceptron, weight_shapes
from iresnet_flows.probes import rademacher

try:
    from torchdiffeq import odeint
except ImportError as error:
    raise MissingExtra("torchdiffeq", "ffjord") from error

__all__ = ["FFJORD"]

ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
FIXED = ("euler", "midpoint", "rk4")
EXACT_FEATURES = 16
MAX_STEPS = 10_000


class FFJORD(Layer):
    r"""The flow of a free-form differential equation, :math:`y = x(T)`.

    .. math:: \dot x = f(t, x; c), \quad x(0) = x, \qquad
              \log|\det \partial y / \partial x| = \int_0^T \operatorname{tr} \partial_x f\, dt

    f is a multilayer perceptron whose biases move with time and context. The log-det has the sign
    of every other layer: plus the integral for `forward`, minus it for `inverse`. Both directions
    integrate, so that they invert each other up to the tolerance alone.

    With the trace by Hutchinson, one Rademacher probe is drawn a call and held fixed along the
    path; the log-det is then unbiased up to the tolerance.

    A fixed-step method has no tolerance: nothing tells that its steps are too few, and its inverse
    and log-det are then off by what the step leaves. torchdiffeq writes in place, so that
    `torch.vmap` of a layer fails: give it the batch instead.

    Arguments:
        features: The dimension d of x.
        hidden_features: The widths of f, at least one.
        context_features: The dimension of the context, or None.
        activation: That of f, by name or an `Activation`.
        time: The length T of the path.
        method: ``dopri5`` or another adaptive method, or ``rk4``, ``midpoint``, ``euler``.
        steps: The number of steps of a fixed-step method; compare the result with twice as many.
        atol: The absolute tolerance of an adaptive method, on each step.
        rtol: The relative one.
        trace: ``exact``, ``hutchinson``, or None: exact where f has two hidden layers at most
            (the trace then costs about one product with the Jacobian) or d is at most 16.
        generator: Draws the probes, else torch's global generator does.

    Shapes:
        x and y (B, d), context (B, context_features) or (context_features,), logabsdet (B,).

    Raises:
        IntegrationFailed: The adaptive step became too small, 10 000 steps were not enough, or a
            value is not finite.
        ValueError: An argument is out of range or a shape does not fit.
        MissingExtra: torchdiffeq is not installed.

    References:
        Grathwohl et al., FFJORD: Free-form Continuous Dynamics for Scalable Reversible Generative
        Models, 2019.

    Example:
        >>> import torch
        >>> layer = FFJORD(2, hidden_features=(16, 16))
        >>> x = torch.randn(5, 2)
        >>> y, logabsdet = layer(x)
        >>> restored, _ = layer.inverse(y)
        >>> torch.allclose(restored, x, atol=1e-4)
        True
    """

    def __init__(
        self,
        features: int,
        hidden_features: Sequence[int] = (64, 64),
        context_features: int | None = None,
        activation: str | Activation = "tanh",
        time: float = 1.0,
        method: str = "dopri5",
        steps: int = 20,
        atol: float = 1e-6,
        rtol: float = 1e-6,
        trace: Literal["exact", "hutchinson"] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_count("features", features)
        check_count("steps", steps)
        if context_features is not None:
            check_count("context_features", context_features)
        if method not in ADAPTIVE + FIXED:
            raise ValueError(
                f"method must be one of {', '.join(ADAPTIVE + FIXED)}, got {method!r}."
            )
        if trace not in ("exact", "hutchinson", None):
            raise ValueError(f"trace must be 'exact', 'hutchinson' or None, got {trace!r}.")
        for name, value in (("time", time), ("atol", atol), ("rtol", rtol)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a positive finite number, got {value!r}.")

        self.features = features
        self.context_features = context_features
        self.time, self.method, self.steps = time, method, steps
        self.atol, self.rtol = atol, rtol
        self.trace = trace
        self.generator = generator

        activations = make_activations(hidden_features, activation)
        self.activations = nn.ModuleList(activations)
        shapes = weight_shapes(features, hidden_features, [a.copies for a in activations])
        self.weights = nn.ParameterList(torch.empty(shape) for shape in shapes)
        self.biases = nn.ParameterList(torch.empty(m) for m, _ in shapes)
        self.rates = nn.ParameterList(torch.empty(m) for m, _ in shapes[:-1])
        self.context_weights = nn.ParameterList(
            torch.empty(m, context_features) for m, _ in shapes[:-1] if context_features
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform within one over the root of the fan-in, a last layer near zero."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / math.sqrt(weight.shape[-1])
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)
        for rate in self.rates:
            nn.init.uniform_(rate, -1, 1)
        for weight in self.context_weights:
            bound = 1 / math.sqrt(weight.shape[-1])
            nn.init.uniform_(weight, -bound, bound)
        with torch.no_grad():
            self.weights[-1].mul_(0.1)
            self.biases[-1].mul_(0.1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.integrate(x, context, (0.0, self.time))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.integrate(y, context, (self.time, 0.0))

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.trajectory(x, context, (0.0, self.time))

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.trajectory(y, context, (self.time, 0.0))

    def integrate(
        self, x: Tensor, context: Tensor | None, span: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        """The end of the path and the integral of the trace along it."""
        f = self.dynamics(x, context)
        probe = None if self.exact else rademacher(x.shape, x, self.generator, 0)

        def rate(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            value, jacobian = f(t).linearize(state[0])
            return value, self.divergence(jacobian, probe)

        end, logabsdet = self.solve(rate, (x, x.new_zeros(len(x))), span)
        return end, logabsdet

    def trajectory(self, x: Tensor, context: Tensor | None, span: tuple[float, float]) -> Tensor:
        f = self.dynamics(x, context)
        (end,) = self.solve(lambda t, state: (f(t)(state[0]),), (x,), span)
        return end

    def solve(
        self,
        rate: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]],
        state: tuple[Tensor, ...],
        span: tuple[float, float],
    ) -> tuple[Tensor, ...]:
        if not len(state[0]):
            return state

        times = torch.tensor(span, dtype=state[0].dtype, device=state[0].device)
        options: dict[str, float] = {"max_num_steps": MAX_STEPS}
        if self.method in FIXED:
            options = {"step_size": self.time / self.steps}
        try:
            path = odeint(
                rate,
                state,
                times,
                rtol=self.rtol,
                atol=self.atol,
                method=self.method,
                options=options,
            )
        except AssertionError as error:  # the only way in which torchdiffeq says so
            raise IntegrationFailed(
                f"{self.method} could not keep the tolerance (atol {self.atol:.1e}, rtol "
                f"{self.rtol:.1e}): {error}. Loosen it, use float64, or take a fixed-step method "
                "such as 'rk4'."
            ) from error
        end = tuple(values[-1] for values in path)
        if not all(concrete(values.isfinite()).all() for values in end):
            raise IntegrationFailed(
                f"{self.method} met NaN or infinite values: check the input and the parameters of "
                "the layer, or raise steps."
            )
        return end

    def dynamics(self, x: Tensor, context: Tensor | None) -> Callable[[Tensor], Perceptron]:
        """f(t, .) as a function of t, with the context in place."""
        check_input("x", x, self.features, self.weights[0].dtype)
        check_context(context, x, self.context_features)

        *hidden, last = self.biases
        if context is not None:
            weights = self.context_weights
            hidden = [b + context @ w.mT for b, w in zip(hidden, weights, strict=True)]
        activations = tuple(a.at() for a in cast("list[Activation]", list(self.activations)))

        def at(t: Tensor) -> Perceptron:
            shifted = (b + t * rate for b, rate in zip(hidden, self.rates, strict=True))
            maps = tuple(Matrix(weight) for weight in self.weights)
            return Perceptron(maps, (*shifted, last), activations)

        return at

    @property
    def exact(self) -> bool:
        """Whether the trace is exact."""
        if self.trace is None:
            return len(self.weights) <= 3 or self.features <= EXACT_FEATURES
        return self.trace == "exact"

    def divergence(self, jacobian: Jacobian, probe: Tensor | None) -> Tensor:
        if probe is not None:
            return (probe * jacobian.apply(probe[None])[0]).sum(-1)
        if jacobian.known_traces(1):
            return jacobian.traces(1)[0]
        return jacobian.core().diagonal(dim1=-2, dim2=-1).sum((-2, -1))

    def extra_repr(self) -> str:
        return f"features={self.features}, method={self.method!r}, time={self.time}"
