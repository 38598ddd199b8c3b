"""Errors of inverses and log-dets on trained blocks, against float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor

from iresnet_flows.experiments.bench.contestants import (
    EQUAL,
    OURS,
    Block,
    Contestant,
    OurBlock,
)
from iresnet_flows.experiments.bench.rows import AtMost, Row, TimesBetter
from iresnet_flows.experiments.bench.settings import Settings, Task
from iresnet_flows.experiments.bench.trained import Gym, jacobians, root
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.logdet import RussianRoulette

__all__ = ["tasks"]

VARIANTS = (OURS, EQUAL)
ROWS = 128
ERROR = "log-det RMS error at equal time (nats)"
NOISE = "log-det variance x time (nats² ms)"
SAME = "on our network"
PROBES = (1, 2, 4, 8, 16, 32, 64)


def tasks(settings: Settings, peers: Sequence[Contestant]) -> list[Task]:
    """The errors at each bound, of all contestants."""
    gym = Gym(settings.trained, settings.train_steps)
    trainings = [
        Task(f"training {c.title}, L = {bound}", partial(train, gym, c, bound))
        for bound in settings.bounds
        for c in (*VARIANTS, *peers)
    ]
    errors = [
        Task(f"{what}, L = {bound}", partial(measure, gym, bound, peers))
        for bound in settings.bounds
        for what, measure in (
            ("inverse error", inverses),
            ("log-det error", partial(log_dets, settings)),
        )
    ]
    return [*trainings, *errors]


def train(gym: Gym, contestant: Contestant, bound: float) -> list[Row]:
    gym.block(contestant, bound)
    return []


def inverses(gym: Gym, bound: float, peers: Sequence[Contestant]) -> list[Row]:
    """The largest error in x of an inverse in float32, at y = block(x) of data x."""
    x = gym.rows[:ROWS]
    errors = {c.title: inverse_error(gym.block(c, bound), x) for c in (*VARIANTS, *peers)}
    return [
        Row(
            "inverse error, float32",
            f"digits, {gym.net}, L = {bound}",
            peer.title,
            variant.title,
            errors[peer.title],
            errors[variant.title],
            AtMost(1e-5, 1e-6),
        )
        for peer in peers
        for variant in VARIANTS
    ]


def inverse_error(block: Block, x: Tensor) -> float | None:
    """That of one block; None where the library gives no inverse."""
    with torch.no_grad(), seeded():
        y = x + block.residual(x)
        try:
            return float((block.invert(y.clone()) - root(block, y)).abs().max())
        except (RuntimeError, ValueError):
            return None


@dataclass(frozen=True)
class Estimate:
    """What an estimator did, on the same rows as all others.

    Arguments:
        rms: The root of the mean squared error, in nats.
        variance: The variance over repeated calls, averaged over the rows, in squared nats.
        size: The mean Frobenius norm of its block's Jacobian, on which the other two depend.
        milliseconds: The time of a call.
    """

    rms: float
    variance: float
    size: float
    milliseconds: float

    def averaged(self, calls: float) -> float:
        """The RMS error of the mean of so many calls, one at least."""
        bias = max(self.rms**2 - self.variance, 0.0)
        return math.sqrt(bias + self.variance / max(calls, 1.0))


def log_dets(settings: Settings, gym: Gym, bound: float, peers: Sequence[Contestant]) -> list[Row]:
    """Errors of log-dets in eval mode at equal time, and variance times time.

    All are timed in one loop: each peer, on its own network and on ours, and each of our variants
    as it comes and as a series with more and more probes.
    """
    x = gym.rows[:ROWS]
    blocks = {peer.title: gym.block(peer, bound) for peer in peers}
    for variant in VARIANTS:
        block = cast("OurBlock", gym.block(variant, bound))
        blocks |= ladder(variant.title, block)
        for peer in peers:
            same = gym.block(peer, bound).around(block.block.branch)
            if same is not None:
                blocks[guest(peer.title, variant.title)] = same
    with torch.no_grad(), seeded():
        times = settings.clock.alternate(
            {title: partial(value, block, x) for title, block in blocks.items()}
        )
    found = {
        title: Estimate(*spread(block, x, settings.repeats), times.median(title) or math.inf)
        for title, block in blocks.items()
        if title not in times.failed
    }
    case = f"digits, {gym.net}, L = {bound}, eval"
    return [
        row
        for peer in peers
        if peer.title in found
        for variant in VARIANTS
        for host in (guest(peer.title, variant.title), peer.title)
        if host in found
        for row in beside(case, host, variant.title, found)
    ]


def guest(peer: str, variant: str) -> str:
    """The title of a peer's block around the trained network of one of our variants."""
    return f"{peer} {SAME} ({variant})"


def ladder(title: str, block: Block) -> dict[str, Block]:
    """Our block as it comes, and with more and more probes."""
    rungs = {f"{title}, as it comes": block}
    for probes in PROBES:
        copy = cast("OurBlock", deepcopy(block))
        copy.block.log_det = RussianRoulette(probes=probes)
        rungs[series(title, probes)] = copy
    return rungs


def series(title: str, probes: int) -> str:
    return f"{title}, {probes} probe{'s'[: probes > 1]}"


def value(block: Block, x: Tensor) -> Tensor:
    return block(x.clone())[1]


def spread(block: Block, x: Tensor, repeats: int) -> tuple[float, float, float]:
    """The RMS error and the mean variance of repeated calls, and the size of the Jacobian."""
    jacobian = jacobians(block, x)
    truth = torch.linalg.slogdet(torch.eye(x.shape[1]) + jacobian).logabsdet
    with torch.no_grad(), seeded():
        draws = torch.stack([value(block, x).double() for _ in range(repeats)])
    rms = (draws - truth).square().mean().sqrt()
    return float(rms), float(draws.var(0).mean()), float(jacobian.flatten(1).norm(dim=1).mean())


def beside(case: str, peer: str, variant: str, found: dict[str, Estimate]) -> list[Row]:
    """The rows of a peer and a variant; an exact log-det of theirs is there to look at."""
    theirs = found[peer]
    exact, same = theirs.variance == 0, SAME in peer
    rows = []
    for name in fitting(variant, theirs, found):
        mine = found[name]
        share = mine.milliseconds / theirs.milliseconds
        error, title = theirs.averaged(share), f"{name}, {share:.2f} t"
        target = TimesBetter(7.0, 30.0) if same else None
        note = f"{peer} computes it exactly" if exact else ""
        rows.append(Row(ERROR, case, peer, title, error, mine.rms, target, note=note))
        if not same:
            relative = error / theirs.size, mine.rms / mine.size
            rows.append(Row(f"{ERROR} over |J|_F", case, peer, title, *relative, note=note))
    return rows if exact else [*rows, *noise(case, peer, series(variant, 1), found)]


def noise(case: str, peer: str, name: str, found: dict[str, Estimate]) -> list[Row]:
    """Variance times time, and the same over the squared size of the Jacobians."""
    theirs, mine = found[peer], found[name]
    a, b = (estimate.variance * estimate.milliseconds for estimate in (theirs, mine))
    if SAME in peer:
        return [Row(NOISE, case, peer, name, a, b, TimesBetter(50.0, 150.0))]
    note = f"|J|_F {theirs.size:.2f}, ours {mine.size:.2f}"
    return [
        Row(NOISE, case, peer, name, a, b, note=note),
        Row(f"{NOISE} over |J|_F²", case, peer, name, a / theirs.size**2, b / mine.size**2),
    ]


def fitting(variant: str, theirs: Estimate, found: dict[str, Estimate]) -> list[str]:
    """Which of ours fit into a call of theirs: as it comes, and the most probes, one at least."""

    def fits(name: str) -> bool:
        return found[name].milliseconds <= theirs.milliseconds

    most = max((p for p in PROBES if fits(series(variant, p))), default=PROBES[0])
    default = f"{variant}, as it comes"
    return [*[default] * fits(default), series(variant, most)]
