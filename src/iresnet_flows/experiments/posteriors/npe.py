"""Neural posterior estimation by sbi, with its own density estimators and with ours."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from typing import Any

import torch
from sbi.inference import NPE
from sbi.inference.posteriors import DirectPosterior
from sbi.neural_nets import posterior_nn
from torch import Tensor

from iresnet_flows.experiments.posteriors.targets import Target, TaskTarget
from iresnet_flows.experiments.posteriors.tasks import Simulator
from iresnet_flows.sbi import build_iresnet

__all__ = ["ESTIMATORS", "UNLIMITED", "Estimator", "Trained", "train", "weigh"]


UNLIMITED = 2**31 - 1  # as in sbi


@dataclass(frozen=True)
class Estimator:
    """A density estimator.

    Arguments:
        title: What tables call it.
        make: What `NPE` asks for, without arguments.
    """

    title: str
    make: Callable[[], Callable[..., Any]]


def ours() -> Callable[..., Any]:
    return build_iresnet


ESTIMATORS = {
    "maf": Estimator("MAF (sbi)", partial(posterior_nn, "maf")),
    "nsf": Estimator("NSF (sbi)", partial(posterior_nn, "nsf")),
    "zuko_nsf": Estimator("NSF (zuko)", partial(posterior_nn, "zuko_nsf")),
    "i-resnet": Estimator("i-ResNet", ours),
}


class Untracked:
    """A tracker that writes nothing, for sbi's own writes to the working directory."""

    log_dir = None

    def ignore(self, *args: Any, **kwargs: Any) -> None:
        """Leave it unwritten."""

    log_metric = log_metrics = log_params = add_figure = flush = ignore


@dataclass
class Trained:
    """A trained estimator of p(theta | x).

    Arguments:
        posterior: It, with the observation in place.
        parameters: How many it has.
        epochs: After how many sbi's early stopping was satisfied.
        seconds: The time that they took, in seconds of the processor.
    """

    posterior: DirectPosterior
    parameters: int
    epochs: int
    seconds: float


def train(
    target: Target, estimator: Estimator, simulations: int, epochs: int = UNLIMITED
) -> Trained:
    """Simulate, and train by sbi's own loop and its defaults. Randomness is torch's.

    Arguments:
        target: A target whose task is a `Simulator`.
        estimator: The density estimator.
        simulations: How many pairs of theta and x.
        epochs: The most that sbi may take until its early stopping is satisfied.

    Raises:
        TypeError: The task has no simulator.
    """
    task, observed = simulated(target)
    theta = task.prior.sample((simulations,))
    x = task.simulate(theta)
    with quiet():
        inference = NPE(
            task.prior,
            density_estimator=estimator.make(),
            show_progress_bars=False,
            tracker=Untracked(),
        )
        inference.append_simulations(theta, x)
        start = time.process_time()
        network = inference.train(max_num_epochs=epochs)
        seconds = time.process_time() - start
        posterior = inference.build_posterior(network).set_default_x(observed)
    parameters = sum(p.numel() for p in network.parameters())
    return Trained(posterior, parameters, inference.summary["epochs_trained"][-1], seconds)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what sbi prints, logs and warns of on its way."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def simulated(target: Target) -> tuple[Simulator, Tensor]:
    """The task of a target that draws data, and what was observed."""
    if not isinstance(target, TaskTarget) or not isinstance(target.task, Simulator):
        raise TypeError(f"{target.title} has no simulator.")
    return target.task, target.observed


def weigh(target: Target, posterior: DirectPosterior, draws: int) -> tuple[Tensor, Tensor]:
    """Draws (N, d) within the prior, and log p(theta, x) - log q(theta), (N,), in nats."""
    with quiet(), torch.no_grad():
        theta = posterior.sample((draws,), show_progress_bars=False)
        log_q = posterior.log_prob(theta)
        log_p = simulated(target)[0].prior.log_prob(theta) + target.log_likelihood(theta)
    return theta, log_p - log_q
