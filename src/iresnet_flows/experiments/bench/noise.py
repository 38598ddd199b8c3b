"""The noise that an estimated log-det brings into the gradient of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from iresnet_flows.experiments.bench.contestants import Contestant, OurBlock
from iresnet_flows.experiments.bench.flows import Flow, mixture
from iresnet_flows.experiments.bench.rows import Row, TimesBetter
from iresnet_flows.experiments.bench.settings import Case
from iresnet_flows.experiments.seeds import seeded

__all__ = ["gradient_noise", "noise_rows"]


def noise_rows(
    flows: dict[str, Flow],
    case: Case,
    peers: Sequence[Contestant],
    variants: Sequence[Contestant],
    repeats: int,
) -> list[Row]:
    """The noise of steps of our flows, and of a peer's blocks around the same networks.

    Arguments:
        flows: The flows in train mode, by the titles of their contestants.
        case: The network and the batch.
        peers: Those whose blocks take any network are measured.
        variants: Ours.
        repeats: How often each gradient is drawn.
    """
    x = mixture(case.net.features, case.batch)
    rows = []
    for variant in variants:
        ours = flows[variant.title]
        noise = gradient_noise(ours, x, repeats)
        for peer in peers:
            theirs = on_our_networks(flows[peer.title], ours)
            if theirs is not None:
                row = Row(
                    "variance of a step's gradient",
                    str(case),
                    f"{peer.title} on our network",
                    variant.title,
                    gradient_noise(theirs, x, repeats),
                    noise,
                    TimesBetter(1.0, 1.0),
                    repeats,
                )
                rows.append(row)
    return rows


def on_our_networks(theirs: Flow, ours: Flow) -> Flow | None:
    """Their blocks around the networks of ours, where they take any."""
    blocks = [
        block.around(cast("OurBlock", own).block.branch)
        for block, own in zip(theirs.each(), ours.each(), strict=True)
    ]
    found = [block for block in blocks if block is not None]
    return Flow(found) if len(found) == len(blocks) else None


def gradient_noise(flow: Flow, x: Tensor, repeats: int) -> float | None:
    """The variance of the gradient of the mean log-likelihood of the same rows, summed over it.

    None where the library gives no gradient.
    """
    parameters = [p for p in flow.parameters() if p.requires_grad]

    def draw() -> Tensor:
        gradients = torch.autograd.grad(
            flow.log_prob(x).mean(), parameters, allow_unused=True, materialize_grads=True
        )
        return torch.cat([g.flatten() for g in gradients]).double()

    with seeded():
        try:
            draws = torch.stack([draw() for _ in range(repeats)])
        except (RuntimeError, ValueError):
            return None
    return float(draws.var(0).sum())
