"""The tasks of sbibm whose likelihood has a closed form (Lueckmann et al., 2021)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from pyro.distributions import (
    Independent,
    MultivariateNormal,
    Normal,
    TorchDistribution,
    Uniform,
)
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["TASKS", "Simulator", "Task"]

LOG_2PI = math.log(2 * math.pi)


class Task(ABC):
    """A prior of theta (d,) and a likelihood of the data x, which stand in one vector.

    Attributes:
        title: What tables call it.
        prior: That of theta.
        observed: The number of data.
    """

    title: str
    prior: TorchDistribution
    observed: int

    @abstractmethod
    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """log p(x | theta) in nats, up to what does not depend on theta: (*B, d) to (*B,)."""


class Simulator(Task):
    """A task that also draws data."""

    @abstractmethod
    def simulate(self, theta: Tensor) -> Tensor:
        """x (B, n) for theta (B, d), drawn by torch's generator."""


def box(low: float, high: float, features: int) -> Independent:
    """The uniform distribution on a cube."""
    return Uniform(torch.full((features,), low), torch.full((features,), high)).to_event(1)


class TwoMoons(Simulator):
    """Half a ring of radius 0.1, mirrored: two crescents, 0.01 wide."""

    title = "two moons"
    prior = box(-1.0, 1.0, 2)
    observed = 2
    radius, width, centre = 0.1, 0.01, 0.25
    edge = 0.001

    def simulate(self, theta: Tensor) -> Tensor:
        angle = (torch.rand(len(theta)) - 0.5) * math.pi
        radius = self.radius + self.width * torch.randn(len(theta))
        ring = torch.stack([radius * angle.cos() + self.centre, radius * angle.sin()], -1)
        return ring + self.shift(theta)

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """The density of x; beyond the half-plane, where it is 0, it falls e-fold every 0.001.

        An expectation of log p needs a density everywhere. Under 1 % of the mass lies there.
        """
        u, v = (x - self.shift(theta)).unbind(-1)
        u = u - self.centre
        radius = torch.hypot(u, v)
        across = (radius - self.radius) / self.width
        beyond = (-u).clamp(min=0) / self.edge
        ring = -0.5 * across.square() - math.log(self.width) - 0.5 * LOG_2PI
        return ring - radius.clamp(min=1e-6).log() - math.log(math.pi) - beyond

    def shift(self, theta: Tensor) -> Tensor:
        first, second = theta.unbind(-1)
        return torch.stack([-(first + second).abs(), second - first], -1) / math.sqrt(2)


class GaussianMixture(Task):
    """A wide and a narrow normal distribution around the same mean."""

    title = "Gaussian mixture"
    prior = box(-10.0, 10.0, 2)
    observed = 2
    scales = (1.0, 0.1)

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        each = [Normal(theta, scale).log_prob(x).sum(-1) for scale in self.scales]
        return torch.stack(each, -1).logsumexp(-1) - math.log(len(self.scales))


class Slcp(Simulator):
    """Simple likelihood, complex posterior: four points of one normal distribution in the plane.

    Its mean is (theta_1, theta_2), its deviations theta_3^2 and theta_4^2, its correlation
    tanh(theta_5). Signs do not matter, so that there are four modes (Papamakarios et al., 2019).
    """

    title = "SLCP"
    prior = box(-3.0, 3.0, 5)
    points = 4
    observed = 2 * points
    least = 1e-6

    def simulate(self, theta: Tensor) -> Tensor:
        mean, first, second, correlation = self.parts(theta)
        a, b = torch.randn(2, len(theta), self.points)
        across = correlation * a + (1 - correlation.square()).sqrt() * b
        noise = torch.stack([first * a, second * across], -1)
        return (mean.unsqueeze(-2) + noise).flatten(-2)

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        mean, first, second, correlation = self.parts(theta)
        u, v = (x.unflatten(-1, (self.points, 2)) - mean.unsqueeze(-2)).unbind(-1)
        u, v = u / first, v / second
        rest = 1 - correlation.square()
        square = (u.square() - 2 * correlation * u * v + v.square()) / rest
        log_scale = first.log() + second.log() + 0.5 * rest.log() + LOG_2PI
        return -(0.5 * square + log_scale).sum(-1)

    def parts(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The mean (*B, 2), and deviations and correlation (*B, 1) bounded away from 0 and 1."""
        deviations = theta[..., 2:4].square().clamp(min=self.least)
        limit = 1 - self.least
        correlation = theta[..., 4:].tanh().clamp(-limit, limit)
        return theta[..., :2], deviations[..., :1], deviations[..., 1:], correlation


class GaussianLinear(Task):
    """A normal mean with known covariance and a normal prior, or with a uniform one."""

    variance = 0.1
    observed = 10

    def __init__(self, title: str, prior: TorchDistribution) -> None:
        self.title = title
        self.prior = prior

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        return Normal(theta, math.sqrt(self.variance)).log_prob(x).sum(-1)


class BernoulliGlm(Task):
    """Spikes driven by a filtered stimulus: logistic regression with a smoothness prior.

    The data are the sufficient statistics X'y of 100 spikes, and log p(y | theta) is
    theta'X'y - sum log(1 + exp(X theta)). X has a constant column and nine delays of the stimulus.
    """

    title = "Bernoulli GLM"
    delays, bins, stimulus_seed = 9, 100, 42
    observed = 1 + delays

    def __init__(self) -> None:
        self.design = self.delayed()
        self.prior = MultivariateNormal(
            torch.zeros(self.delays + 1), precision_matrix=self.precision()
        )

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        return (theta * x).sum(-1) - softplus(theta @ self.design.T).sum(-1)

    def delayed(self) -> Tensor:
        # sbibm froze this stimulus, which is the first that numpy's generator of old draws.
        stimulus = np.random.RandomState(self.stimulus_seed).randn(self.bins)
        columns = [np.roll(stimulus, delay) for delay in range(self.delays)]
        design = np.tril(np.stack([np.ones(self.bins), *columns], 1), k=1)
        return torch.from_numpy(design).float()

    def precision(self) -> Tensor:
        """Large second differences of the filter are unlikely, and late entries are small."""
        steps = torch.eye(self.delays) - torch.diag(torch.ones(self.delays - 1), -1)
        decay = torch.diag(torch.arange(self.delays) / self.delays).sqrt()
        smooth = steps @ steps + decay
        return torch.block_diag(torch.tensor([[0.5]]), smooth.T @ smooth)


def wide_normal() -> TorchDistribution:
    return Normal(torch.zeros(10), math.sqrt(GaussianLinear.variance)).to_event(1)


TASKS: dict[str, Task] = {
    "two_moons": TwoMoons(),
    "gaussian_mixture": GaussianMixture(),
    "slcp": Slcp(),
    "gaussian_linear": GaussianLinear("Gaussian linear", wide_normal()),
    "gaussian_linear_uniform": GaussianLinear("Gaussian linear, uniform", box(-1.0, 1.0, 10)),
    "bernoulli_glm": BernoulliGlm(),
}
