"""Posteriors as Pyro models, each with draws to compare with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions import (
    HalfCauchy,
    Normal,
    TorchDistribution,
    TransformedDistribution,
)
from pyro.distributions.transforms import ExpTransform
from pyro.infer import MCMC, NUTS
from torch import Tensor

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.data.bundled import data_folder
from iresnet_flows.experiments.data.files import read_npy
from iresnet_flows.experiments.posteriors.tasks import TASKS, Task
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.experiments.storage import write
from iresnet_flows.experiments.tensors import load_arrays

__all__ = ["TARGETS", "EightSchools", "Target", "TaskTarget", "load_target"]


class Target(ABC):
    """A Pyro model, and draws of its posterior to compare with.

    Attributes:
        title: What tables call it.
        labels: The names of the d parameters.
        coldest: The power of the likelihood from which a fit starts; 1 where one mode is certain.
    """

    title: str
    labels: tuple[str, ...]
    coldest = 1e-4

    @abstractmethod
    def parameters(self) -> Tensor:
        """The parameters (*B, d), each drawn from its prior by `pyro.sample`."""

    @abstractmethod
    def log_likelihood(self, parameters: Tensor) -> Tensor:
        """log p(data | parameters) in nats, (*B,)."""

    @abstractmethod
    def reference(self) -> Tensor:
        """Draws of the posterior, (N, d)."""

    def model(self, power: float = 1.0) -> None:
        """The joint density p(parameters) p(data | parameters)^power."""
        pyro.factor("likelihood", power * self.log_likelihood(self.parameters()))

    def collect(self, values: Mapping[str, Tensor]) -> Tensor:
        """The parameters (*B, d) of what a guide has drawn."""
        return poutine.condition(self.parameters, data=dict(values))()


class TaskTarget(Target):
    """A task of sbibm with one of its ten observations.

    Arguments:
        task: The task.
        observed: The data x.
        draws: The reference draws (N, d) that come with them.
    """

    def __init__(self, task: Task, observed: Tensor, draws: Tensor) -> None:
        self.task = task
        self.observed = observed
        self.draws = draws
        self.title = task.title
        self.labels = tuple(f"theta {i + 1}" for i in range(draws.shape[-1]))

    def parameters(self) -> Tensor:
        return pyro.sample("theta", self.task.prior)

    def log_likelihood(self, parameters: Tensor) -> Tensor:
        return self.task.log_likelihood(parameters, self.observed)

    def reference(self) -> Tensor:
        return self.draws


class EightSchools(Target):
    """What coaching did in eight schools: a funnel of effects and their scale (Rubin, 1981).

    mu ~ Normal(0, 5), tau ~ HalfCauchy(5), theta_j ~ Normal(mu, tau), y_j ~ Normal(theta_j, s_j),
    in the parameters mu, log tau and theta.

    Arguments:
        kept: The file that keeps the reference draws, for they take minutes; or None.
        draws: How many there are.
        warmup: The steps before them in which NUTS adapts.
    """

    title = "eight schools"
    coldest = 1.0
    labels = ("mu", "log tau", *(f"theta {i + 1}" for i in range(8)))
    effects = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def __init__(self, kept: Path | None = None, draws: int = 10_000, warmup: int = 1_000) -> None:
        self.kept = kept
        self.draws = draws
        self.warmup = warmup

    def priors(self) -> tuple[TorchDistribution, TorchDistribution]:
        """Those of mu and of log tau."""
        return Normal(0.0, 5.0), TransformedDistribution(HalfCauchy(5.0), [ExpTransform().inv])

    def parameters(self) -> Tensor:
        of_mu, of_log_tau = self.priors()
        mu, log_tau = pyro.sample("mu", of_mu), pyro.sample("log_tau", of_log_tau)
        effects = Normal(mu.unsqueeze(-1), log_tau.exp().unsqueeze(-1))
        theta = pyro.sample("theta", effects.expand((*mu.shape, 8)).to_event(1))
        return torch.cat([mu.unsqueeze(-1), log_tau.unsqueeze(-1), theta], -1)

    def log_likelihood(self, parameters: Tensor) -> Tensor:
        return Normal(parameters[..., 2:], self.errors).log_prob(self.effects).sum(-1)

    def reference(self) -> Tensor:
        if self.kept is None:
            return self.sampled()
        if not self.kept.exists():
            draws = self.sampled().numpy()

            def save(part: Path) -> None:
                np.save(part, draws)

            write(self.kept, save)
        return torch.from_numpy(load_arrays(self.kept))

    def sampled(self) -> Tensor:
        """By NUTS on standardised effects z = (theta - mu) / tau, which do not form a funnel."""
        of_mu, of_log_tau = self.priors()

        def potential(values: dict[str, Tensor]) -> Tensor:
            mu, log_tau, z = values["mu"], values["log_tau"], values["z"]
            prior = of_mu.log_prob(mu) + of_log_tau.log_prob(log_tau) - 0.5 * z.square().sum()
            return -prior - self.log_likelihood(self.joined(mu, log_tau, z))

        start = {"mu": torch.zeros(()), "log_tau": torch.zeros(()), "z": torch.zeros(8)}
        kernel = NUTS(potential_fn=potential, target_accept_prob=0.95)
        chain = MCMC(kernel, self.draws, self.warmup, initial_params=start, disable_progbar=True)
        with seeded():
            chain.run()
        return self.joined(**chain.get_samples())

    def joined(self, mu: Tensor, log_tau: Tensor, z: Tensor) -> Tensor:
        """The parameters from standardised effects."""
        mu, log_tau = mu.unsqueeze(-1), log_tau.unsqueeze(-1)
        return torch.cat([mu, log_tau, mu + log_tau.exp() * z], -1)


TARGETS = (*TASKS, "eight_schools")


def load_target(
    name: str, data_dir: Path | None, observation: int = 1, folder: Path | None = None
) -> Target:
    """A target by its name.

    Arguments:
        name: One of `TARGETS`.
        data_dir: The folder that holds `sbibm/`; None: that of IRESNET_FLOWS_DATA, or
            `~/.cache/iresnet_flows`.
        observation: The number of the observation, 1 to 10.
        folder: Where reference draws that take minutes are kept.

    Raises:
        DataError: A file is missing or cannot be used.
    """
    if name == "eight_schools":
        return EightSchools(folder / f"{name}.npy" if folder else None)
    task = TASKS[name]
    source = data_folder(data_dir) / "sbibm" / name
    paths = [source / f"{kind}_{observation}.npy" for kind in ("observation", "reference")]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f"{name}: no {', '.join(missing)} in {source}: put sbibm's there, or name the folder "
            f"that holds sbibm/{name}/ with --data-dir or IRESNET_FLOWS_DATA."
        )
    observed, draws = (torch.from_numpy(read_npy(path).values).float() for path in paths)
    require_columns(paths[0], observed, task.observed, f"{name} observes {task.observed} numbers")
    features = task.prior.event_shape[0]
    require_columns(paths[1], draws, features, f"{name} has {features} parameters")
    return TaskTarget(task, observed[0], draws)


def require_columns(path: Path, table: Tensor, count: int, why: str) -> None:
    if table.shape[-1] != count:
        raise DataError(f"{path}: {table.shape[-1]} columns, and {why}.")
