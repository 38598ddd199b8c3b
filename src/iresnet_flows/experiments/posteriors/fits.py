"""A guide fitted to a target in a given time."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass

import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoGuide

from iresnet_flows.experiments.budgets import Diverged
from iresnet_flows.experiments.posteriors.guides import Guide
from iresnet_flows.experiments.posteriors.targets import Target

__all__ = ["Fit", "fit"]

PARTICLES = 128
ANNEALED = 0.8
MAX_NORM = 10.0
MAX_FAILURES = 100


@dataclass
class Fit:
    """A fitted guide.

    Arguments:
        guide: The guide.
        parameters: How many it has.
        steps: The optimiser steps taken.
        seconds: The time they took.
    """

    guide: AutoGuide
    parameters: int
    steps: int
    seconds: float


def fit(target: Target, recipe: Guide, seconds: float) -> Fit:
    """Maximise the ELBO by Adam, with a cosine schedule over the time that there is.

    The likelihood enters by and by, as a power that rises from `Target.coldest` to one, so that
    modes are found before they part. Every guide has the same particles, powers, clipping and
    schedule. Randomness is torch's.

    Arguments:
        target: The posterior.
        recipe: The family.
        seconds: The time, in seconds of the processor; on an idle core, those of the wall clock.

    Raises:
        Diverged: A hundred gradients in a row were not finite.
    """
    guide = recipe.make(target.model)
    guide()
    optimizer = torch.optim.Adam(guide.parameters(), recipe.learning_rate)
    loss = Trace_ELBO(num_particles=PARTICLES, vectorize_particles=True, max_plate_nesting=0)
    steps = failures = 0
    start = time.process_time()  # which other processes do not use up
    while (passed := (time.process_time() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * passed))
        power = target.coldest ** max(0.0, 1 - passed / ANNEALED)
        finite = step(loss, target, guide, optimizer, power)
        failures = 0 if finite else failures + 1
        steps += 1
        if failures > MAX_FAILURES:
            raise Diverged(f"the last {failures} of {steps} gradients were not finite")
    parameters = sum(p.numel() for p in guide.parameters())
    return Fit(guide, parameters, steps, time.process_time() - start)


def step(
    loss: Trace_ELBO,
    target: Target,
    guide: AutoGuide,
    optimizer: torch.optim.Optimizer,
    power: float,
) -> bool:
    """Take a step, and say whether its gradient was finite; without that, none is taken."""
    optimizer.zero_grad()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered (NaN|\\+?-?inf)", UserWarning)
        loss.differentiable_loss(target.model, guide, power=power).backward()
    norm = torch.nn.utils.clip_grad_norm_(guide.parameters(), MAX_NORM)
    finite = bool(norm.isfinite())
    if finite:
        optimizer.step()
    return finite
