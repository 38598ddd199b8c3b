"""What each rank of a training does: `torchrun` starts this file with a folder."""

from __future__ import annotations

import dataclasses
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from iresnet_flows import Exact, PowerSeries, RussianRoulette
from iresnet_flows.experiments.budgets import Budget
from iresnet_flows.experiments.images.architectures import residual
from iresnet_flows.experiments.images.glows import glow_classifier
from iresnet_flows.experiments.images.tasks import Classification, Hybrid, Likelihood
from iresnet_flows.experiments.images.training import Machine, train
from iresnet_flows.experiments.upkeep import update_normflows
from iresnet_flows.logdet.roulette import Tail
from iresnet_flows.models import ImageBlocks, Layout, i_resnet_flow

sys.path.insert(0, str(Path(__file__).parent))

from image_cases import CLASSIFIER, DENSITY, TinyDensity, image_set

STEPS = 5


def density(make, **options):
    return dataclasses.replace(DENSITY, make=make, **options), Likelihood()


def glow(affine):
    make = partial(glow_classifier, layout=Layout((2,), (True,)), width=4, affine=affine)
    return dataclasses.replace(CLASSIFIER, make=make, average=0.9), Classification()


def residual_blocks(shape, _classes):
    return residual(shape, 4, levels=1, depth=2)


def i_resnet(shape, _classes):
    return i_resnet_flow(shape, (1, 1), ImageBlocks((4, 4), memory="low"))


def residual_flow(shape, _classes):
    blocks = ImageBlocks((4, 4), activation="lipswish", memory="low")
    ends = {"squeeze_first": False, "factor_out": False, "connected": (4, 4)}
    return i_resnet_flow(shape, (1, 1), blocks, **ends)


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
    "i-resnet in low memory": density(i_resnet),
    "residual flow": density(residual_flow),
}
if find_spec("normflows"):
    CASES |= {
        "glow, affine": glow(affine=True),
        "glow, additive": glow(affine=False),
        "residual blocks of normflows": density(residual_blocks, after_step=update_normflows),
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
