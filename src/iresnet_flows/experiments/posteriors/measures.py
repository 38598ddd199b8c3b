"""How close a guide is to the posterior that it approximates."""

from __future__ import annotations

import math
import statistics
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from pyro.infer.autoguide import AutoGuide
from pyro.infer.importance import vectorized_importance_weights
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from torch import Tensor

from iresnet_flows.experiments.posteriors.targets import Target

__all__ = ["Estimate", "c2st", "efficiency", "elbo", "weigh"]

CHUNK = 1000
FOLDS = 5
BLOCKS = 20


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error."""

    value: float
    standard_error: float


@torch.no_grad()
def weigh(target: Target, guide: AutoGuide, draws: int) -> tuple[Tensor, Tensor]:
    """Draws (N, d) of the guide, and log p(theta, x) - log q(theta), (N,), in nats."""
    parts, weights = [], []
    for _ in range(math.ceil(draws / CHUNK)):
        log_weights, _, trace = vectorized_importance_weights(
            target.model, guide, num_samples=CHUNK, max_plate_nesting=0, normalized=False
        )
        values = {name: node["value"] for name, node in trace.nodes.items() if "value" in node}
        parts.append(target.collect(values))
        weights.append(log_weights)
    return torch.cat(parts)[:draws], torch.cat(weights)[:draws]


def elbo(log_weights: Tensor) -> Estimate:
    """The mean of log p(theta, x) - log q(theta), in nats: log p(x) less KL(q, p)."""
    error = log_weights.std() / math.sqrt(len(log_weights))
    return Estimate(float(log_weights.mean()), float(error))


def efficiency(log_weights: Tensor) -> Estimate:
    """(sum w)^2 / (N sum w^2): the share of draws that importance sampling is left with.

    The standard error is the jackknife's over 20 blocks. A guide that misses a mode does not show
    here; C2ST shows it.
    """
    blocks = log_weights.chunk(BLOCKS)
    left_out = [share(torch.cat([*blocks[:i], *blocks[i + 1 :]])) for i in range(len(blocks))]
    spread = statistics.pvariance(left_out) * (len(blocks) - 1)
    return Estimate(share(log_weights), math.sqrt(spread))


def share(log_weights: Tensor) -> float:
    log_sum = 2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)
    return math.exp(float(log_sum)) / len(log_weights)


def c2st(draws: Tensor, reference: Tensor, seed: int = 0) -> Estimate:
    """The accuracy of a classifier that tells the draws from the reference; 0.5 is best.

    scikit-learn's network of two hidden layers of 10 d units, on data standardised by the
    reference, stopped when a tenth that it does not learn from gains no more; the mean over five
    folds and its standard error (Lopez-Paz and Oquab, 2017; sizes as in Lueckmann et al., 2021).

    Arguments:
        draws: (N, d).
        reference: (M, d), of which the first N are used.
        seed: That of the folds and of the network.
    """
    reference = reference[: len(draws)]
    mean, scale = reference.mean(0), reference.std(0)
    rows = ((torch.cat([draws, reference]) - mean) / scale).numpy()
    labels = np.repeat([0, 1], [len(draws), len(reference)])
    units = 10 * rows.shape[1]
    network = MLPClassifier((units, units), max_iter=1000, early_stopping=True, random_state=seed)
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(network, rows, labels, cv=folds)
    return Estimate(float(scores.mean()), float(scores.std(ddof=1)) / math.sqrt(FOLDS))
