"""Small models that a study trains for itself, kept where --resume finds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from rich.console import Console
from torch import Tensor, nn

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.budgets import Budget, Diverged
from iresnet_flows.experiments.machines import stopwatch
from iresnet_flows.experiments.processes import each_in_parallel
from iresnet_flows.experiments.storage import claim_part, reading, write
from iresnet_flows.experiments.studies import Settings
from iresnet_flows.experiments.tensors import load_tensors

__all__ = ["Planned", "Trained", "each_trained", "trained"]

WEIGHTS = "weights.pt"

Model = TypeVar("Model", bound=nn.Module)
Plan = TypeVar("Plan", bound="Planned")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Trained:
    """What a training took.

    Arguments:
        steps: The number of optimiser steps.
        seconds: Their time.
    """

    steps: int
    seconds: float


class Planned:
    """A training to come; a dataclass of its settings inherits from it.

    Attributes:
        folder: Of this training alone.
    """

    folder: Path

    def record(self) -> dict[str, Any]:
        """What it is made of, wherever it stands."""
        settings = asdict(cast("Any", self))
        return {key: value for key, value in settings.items() if key != "folder"}


def each_trained(
    plans: Sequence[Plan],
    settings: Settings,
    title: str,
    perform: Callable[[Plan], Outcome],
    console: Console,
) -> list[Outcome]:
    """What is made of each training, in their order, some of them at a time.

    Raises:
        UsageError: There is another training to resume, or a loss is no longer a number.
    """
    for plan in plans:
        claim_part(plan.folder, plan.record(), settings.resume)
    try:
        return list(each_in_parallel(plans, settings.jobs, console, title, perform))
    except Diverged as error:
        raise UsageError(f"{error}: give another --seed.") from error


def trained(
    model: nn.Module, loss: Callable[[], Tensor], budget: Budget, rate: float, folder: Path
) -> Trained:
    """Give the model the weights in its folder, or train it and put them there.

    Arguments:
        model: What is trained, in place, and left in eval mode without gradients.
        loss: The loss of the next step.
        budget: How long.
        rate: The learning rate of Adam, which falls to zero linearly.
        folder: That of this training alone.

    Raises:
        Diverged: The loss is no longer a number.
    """
    path = folder / WEIGHTS
    if path.is_file():
        kept = load_tensors(path)
        with reading(path):
            model.load_state_dict(kept["state"])
            outcome = Trained(kept["steps"], kept["seconds"])
    else:
        outcome = train(model, loss, budget, rate)
        kept = {
            "state": model.state_dict(),
            "steps": outcome.steps,
            "seconds": outcome.seconds,
        }
        write(path, lambda part: torch.save(kept, part))
    model.eval().requires_grad_(requires_grad=False)
    return outcome


def train(model: nn.Module, loss: Callable[[], Tensor], budget: Budget, rate: float) -> Trained:
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    now = stopwatch("cpu")
    steps, start = 0, now()
    while (spent := budget.spent(steps, now() - start)) < 1:
        optimiser.param_groups[0]["lr"] = rate * (1 - spent)
        optimiser.zero_grad()
        value = loss()
        if not math.isfinite(value.item()):
            raise Diverged(f"the loss is {value.item()} at step {steps}")
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        steps += 1
    return Trained(steps, now() - start)
