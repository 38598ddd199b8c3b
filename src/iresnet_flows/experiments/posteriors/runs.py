"""One approximation of one posterior with one seed: made, measured, kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import pyro
from torch import Tensor

from iresnet_flows.experiments.budgets import Diverged
from iresnet_flows.experiments.posteriors import fits, measures, npe
from iresnet_flows.experiments.posteriors.corners import corner
from iresnet_flows.experiments.posteriors.guides import GUIDES
from iresnet_flows.experiments.posteriors.measures import Estimate
from iresnet_flows.experiments.posteriors.targets import Target, load_target
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.experiments.storage import read_json, reading, write_json

__all__ = ["TITLES", "Effort", "Outcome", "Spec", "perform"]

TITLES = {
    "guides": {name: guide.title for name, guide in GUIDES.items()},
    "npe": {name: estimator.title for name, estimator in npe.ESTIMATORS.items()},
}


@dataclass(frozen=True)
class Effort:
    """How much is spent on a run.

    Arguments:
        seconds: The time in which a guide is fitted, on one thread.
        simulations: What a neural estimator learns from.
        epochs: The most that it is trained for.
        draws: The draws that are weighed, and compared with as many of the reference.
    """

    seconds: float
    simulations: int
    epochs: int
    draws: int


@dataclass(frozen=True)
class Spec:
    """What is to be done; it can be sent to another process.

    Arguments:
        study: ``"guides"`` or ``"npe"``.
        target: A name of `TARGETS`.
        method: A name of `GUIDES` or of `ESTIMATORS`.
        seed: That of everything random in it.
        effort: How much is spent on it.
        observation: The number of the observation, of tasks that have several.
        data_dir: As in `load_target`.
        folder: Where results are kept.
        drawn: Whether there is a corner plot of it.
    """

    study: str
    target: str
    method: str
    seed: int
    effort: Effort
    observation: int
    data_dir: Path | None
    folder: Path
    drawn: bool

    @property
    def result(self) -> Path:
        name = f"{self.study}-{self.target}-{self.method}-seed{self.seed}.json"
        return self.folder / "runs" / name

    def load(self) -> Target:
        return load_target(
            self.target, self.data_dir, self.observation, self.folder / "references"
        )


@dataclass
class Outcome:
    """What a run came to.

    Arguments:
        study: As in its `Spec`, and so are target, method and seed.
        error: Why there is no result, or None.
        c2st: The accuracy of a classifier that tells draws from the reference; 0.5 is best.
        elbo: The mean of log p(theta, x) - log q(theta), in nats.
        efficiency: The share of draws that importance sampling is left with.
        parameters: Those of the network.
        steps: Optimiser steps, or sbi's epochs.
        seconds: The time that training took.
    """

    study: str
    target: str
    method: str
    seed: int
    error: str | None = None
    c2st: Estimate | None = None
    elbo: Estimate | None = None
    efficiency: Estimate | None = None
    parameters: int = 0
    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Outcome:
        with reading(path):
            record = read_json(path)
            for name in ("c2st", "elbo", "efficiency"):
                record[name] = None if record[name] is None else Estimate(**record[name])
            return cls(**record)


def perform(spec: Spec) -> Outcome:
    """Do what is to be done, or read what was."""
    if spec.result.exists():
        return Outcome.read(spec.result)
    target = spec.load()
    outcome = Outcome(spec.study, spec.target, spec.method, spec.seed)
    with seeded(spec.seed), pyro.get_param_store().scope():
        try:
            draws, log_weights = APPROXIMATE[spec.study](spec, target, outcome)
            reference = target.reference()
            measure(outcome, draws, log_weights, reference)
            if spec.drawn:
                picture = spec.folder / "figures" / f"{spec.result.stem}.png"
                title = f"{target.title}: {TITLES[spec.study][spec.method]}"
                corner(picture, draws, reference, target.labels, title)
        except Diverged as diverged:
            outcome.error = str(diverged)
    write_json(spec.result, asdict(outcome))
    return outcome


def by_guide(spec: Spec, target: Target, outcome: Outcome) -> tuple[Tensor, Tensor]:
    fit = fits.fit(target, GUIDES[spec.method], spec.effort.seconds)
    outcome.parameters, outcome.steps, outcome.seconds = fit.parameters, fit.steps, fit.seconds
    return measures.weigh(target, fit.guide, spec.effort.draws)


def by_estimator(spec: Spec, target: Target, outcome: Outcome) -> tuple[Tensor, Tensor]:
    effort = spec.effort
    estimator = npe.ESTIMATORS[spec.method]
    trained = npe.train(target, estimator, effort.simulations, effort.epochs)
    outcome.parameters, outcome.seconds = trained.parameters, trained.seconds
    outcome.steps = trained.epochs
    return npe.weigh(target, trained.posterior, spec.effort.draws)


APPROXIMATE = {"guides": by_guide, "npe": by_estimator}


def measure(outcome: Outcome, draws: Tensor, log_weights: Tensor, reference: Tensor) -> None:
    unsound = ~draws.isfinite().all(-1) | log_weights.isnan()
    if unsound.any():
        raise Diverged(f"{int(unsound.sum())} of {len(draws)} draws are not finite")
    outcome.c2st = measures.c2st(draws, reference, outcome.seed)
    outcome.elbo = measures.elbo(log_weights)
    outcome.efficiency = measures.efficiency(log_weights)
