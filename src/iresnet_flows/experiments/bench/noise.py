"""The noise that an estimated log-det brings into the gradient of a training step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iresnet_flows.experiments.bench.contestants import Contestant
from iresnet_flows.experiments.bench.flows import Flow, mixture
from iresnet_flows.experiments.bench.rows import Row, TimesBetter
from iresnet_flows.experiments.bench.settings import Case
from iresnet_flows.experiments.seeds import seeded

__all__ = ["gradient_noise", "noise_rows"]


def noise_rows(
    flows: dict[str, Flow],
    case: Case,
    pairs: Sequence[tuple[Contestant, Contestant]],
    repeats: int,
) -> list[Row]:
    """The noise of flows whose steps were timed, each of them on its own network.

    Arguments:
        flows: The flows in train mode, by the titles of their contestants.
        case: The network and the batch.
        pairs: The peers, each with one of our variants.
        repeats: How often each gradient is drawn.
    """
    x = mixture(case.net.features, case.batch)
    found = {title: gradient_noise(flow, x, repeats) for title, flow in flows.items()}
    return [
        Row(
            "variance of a step's gradient over its square",
            str(case),
            peer.title,
            variant.title,
            found[peer.title],
            found[variant.title],
            TimesBetter(1.0, 1.0),
            repeats,
        )
        for peer, variant in pairs
    ]


def gradient_noise(flow: Flow, x: Tensor, repeats: int) -> float | None:
    r"""The variance of the gradient of the mean log-likelihood of the same rows.

    It is relative, :math:`\operatorname{tr} \operatorname{Cov}(g) / |\mathbb{E} g|^2`, so that
    networks of different sizes can be compared. None where the library gives no gradient.
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
    variance = float(draws.var(0).sum())
    return variance / (float(draws.mean(0).square().sum()) - variance / repeats)
