"""What each rank of a training does: `torchrun` starts this file with a folder."""

from __future__ import annotations

import dataclasses
import os
import sys
from functools import partial
from pathlib import Path

import torch

from iresnet_flows import Exact, PowerSeries, RussianRoulette
from iresnet_flows.experiments.budgets import Budget
from iresnet_flows.experiments.images.tasks import Classification, Hybrid
from iresnet_flows.experiments.images.training import Machine, train
from iresnet_flows.logdet.roulette import Tail

sys.path.insert(0, str(Path(__file__).parent))

from image_cases import CLASSIFIER, DENSITY, TinyDensity, image_set

STEPS = 5
CASES = {
    **{
        name: (dataclasses.replace(DENSITY, make=partial(TinyDensity, log_det=log_det)), Hybrid())
        for name, log_det in {
            "exact": Exact(),
            "series": PowerSeries(terms=6),
            "roulette": RussianRoulette(probes=2),
        }.items()
    },
    "classifier": (CLASSIFIER, Classification()),
}


def trained(name, folder, ranks=1):
    """The losses, weights and lengths of series of a training on so many ranks, and its rank."""
    losses, lengths = [], []
    draw = Tail.draw

    def noted(self, generator):
        length = draw(self, generator)
        lengths.append(length)
        return length

    Tail.draw = noted
    recipe, task = CASES[name]
    try:
        result = train(
            *(recipe, task, image_set(), folder, Budget(steps=STEPS)),
            machine=Machine(devices=ranks),
            progress=lambda spent, loss: losses.append(loss),
        )
    finally:
        Tail.draw = draw
    return {
        "losses": torch.tensor(losses, dtype=torch.float64),
        "weights": result.model.state_dict(),
        "lengths": torch.stack(lengths) if lengths else torch.zeros(0),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    for case in CASES:
        found = trained(case, where / case, ranks=2)
        torch.save(found, where / f"{case}-{os.environ['RANK']}.pt")
