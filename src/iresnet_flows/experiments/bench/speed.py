"""Times of training steps, log-densities and samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import cast

import torch
from torch import Tensor

from iresnet_flows.experiments.bench.clocks import Times
from iresnet_flows.experiments.bench.contestants import (
    EQUAL,
    OURS,
    Contestant,
    Net,
    OurBlock,
    ours,
)
from iresnet_flows.experiments.bench.flows import Flow, build, mixture, stepper
from iresnet_flows.experiments.bench.noise import noise_rows
from iresnet_flows.experiments.bench.rows import Row, ShareOf, Target, TimesBetter
from iresnet_flows.experiments.bench.settings import Case, Settings, Task
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.inverse import Anderson
from iresnet_flows.lipschitz import LipschitzMLP
from iresnet_flows.logdet import Exact
from iresnet_flows.maps.linear import Matrix
from iresnet_flows.maps.perceptrons import Perceptron

__all__ = ["EVALUATIONS", "flow_runs", "tasks"]

VARIANTS = (OURS, EQUAL)
LOOSE = ours("csin, inverse to 1e-3")
POOL = 4096
PRODUCTS = 22  # what normflows' eval mode takes on average
Runs = dict[str, Callable[[], object]]


def tasks(settings: Settings, peers: Sequence[Contestant]) -> list[Task]:
    """All that is timed."""
    sides = [
        Task(f"times, {case}", partial(side_by_side, settings, case, peers))
        for case in settings.cases
    ]
    price = [
        Task(f"price of the log-det, {case}", partial(over_bare, settings, case))
        for case in settings.cases
    ]
    exact = [
        Task(f"exact log-det, {activation}", partial(over_products, settings, activation, width))
        for activation, width in (("lipswish", 64), ("csin", 128))
    ]
    return [*sides, *price, *exact]


def side_by_side(settings: Settings, case: Case, peers: Sequence[Contestant]) -> list[Row]:
    """Each measure of all contestants, in one loop."""
    contestants = [*VARIANTS, *peers]
    flows = {c.title: build(c, case.net) for c in contestants}
    rows: list[Row] = []
    with seeded():
        steps = flow_runs(flows, case, settings.warm_steps)
        times = settings.clock.alternate(steps)
        rows += compared("training step (ms)", str(case), times, peers, case.step)
        rows += noise_rows(flows, case, peers, VARIANTS, settings.repeats)
        flows[LOOSE.title] = loosened(flows[OURS.title])
        for flow in flows.values():
            flow.eval()
        for measure, (run, target) in EVALUATIONS.items():
            with torch.no_grad():
                times = settings.clock.alternate(run(flows, case))
            variants = VARIANTS if measure.startswith("log_prob") else (*VARIANTS, LOOSE)
            rows += compared(measure, str(case), times, peers, target, variants)
    return rows


def loosened(flow: Flow) -> Flow:
    """The flow with inverses as inexact as those of others: see the rows of inverse errors."""
    copy = deepcopy(flow)
    for block in copy.each():
        cast("OurBlock", block).block.solver = Anderson(atol=1e-3, rtol=0.0, precision=None)
    return copy


def flow_runs(flows: dict[str, Flow], case: Case, warm_steps: int) -> Runs:
    """A training step of each, after some that are not counted; what breaks is left as it is."""
    pool = mixture(case.net.features, POOL)
    runs: Runs = {}
    for title, flow in flows.items():
        runs[title] = step = stepper(flow.train(), partial(batch, pool, case.batch))
        try:
            for _ in range(warm_steps):
                step()
        except (RuntimeError, ValueError):
            continue  # the clock meets it again and says so
    return runs


def batch(pool: Tensor, count: int) -> Tensor:
    return pool[torch.randint(len(pool), (count,))]


def log_probs(flows: dict[str, Flow], case: Case) -> Runs:
    x = mixture(case.net.features, case.batch)
    return {title: partial(flow.log_prob, x) for title, flow in flows.items()}


def samples(flows: dict[str, Flow], case: Case) -> Runs:
    z = torch.randn(case.batch, case.net.features)
    return {title: partial(flow.sample, z) for title, flow in flows.items()}


def inverses(flows: dict[str, Flow], case: Case) -> Runs:
    z = torch.randn(case.batch, case.net.features)
    return {title: partial(flow.inverse, z) for title, flow in flows.items()}


EVALUATIONS: dict[str, tuple[Callable[[dict[str, Flow], Case], Runs], Target | None]] = {
    "log_prob (ms)": (log_probs, None),
    "sampling (ms)": (samples, TimesBetter(5.0, 15.0)),
    "inverse with log-det (ms)": (inverses, None),
}


def compared(
    measure: str,
    case: str,
    times: Times,
    peers: Sequence[Contestant],
    target: Target | None,
    variants: Sequence[Contestant] = VARIANTS,
) -> list[Row]:
    """A row for each of our variants against each peer."""
    return [
        Row(
            measure,
            case,
            peer.title,
            variant.title,
            times.median(peer.title),
            times.median(variant.title),
            target,
            len(times.rounds.get(variant.title, ())),
            times.failed.get(peer.title, times.failed.get(variant.title, "")),
            times.spread(peer.title, variant.title),
        )
        for peer in peers
        for variant in variants
    ]


def over_bare(settings: Settings, case: Case) -> list[Row]:
    """Our training step over that of the same networks without bound and log-det."""
    flow = build(OURS, case.net)
    with seeded():
        pool = mixture(case.net.features, POOL)
        full = flow_runs({"ours": flow}, case, settings.warm_steps)
        copy = deepcopy(flow)
        optimiser = torch.optim.Adam(copy.parameters())

        def bare() -> None:
            optimiser.zero_grad(set_to_none=True)
            values(copy, batch(pool, case.batch)).square().mean().backward()
            optimiser.step()

        times = settings.clock.alternate({**full, "bare": bare})
    return [
        Row(
            "training step over a bare one (ms)",
            str(case),
            "no log-det, no bound",
            OURS.title,
            times.median("bare"),
            times.median("ours"),
            ShareOf(2.5, 1.8),
            len(times.rounds["bare"]),
        )
    ]


def values(flow: Flow, x: Tensor) -> Tensor:
    """What the flow's networks give with their weights as they are."""
    for block in flow.each():
        branch = cast("LipschitzMLP", cast("OurBlock", block).block.branch)
        maps = tuple(Matrix(weight) for weight in branch.weights)
        activations = tuple(a.at() for a in branch.each_activation())
        x = x + Perceptron(maps, tuple(branch.biases), activations)(x)
    return x


def over_products(settings: Settings, activation: str, width: int) -> list[Row]:
    """The exact log-det at a cut of 64 over the products that a series takes."""
    net = Net(settings.exact_features, (width, width), blocks=1)
    (block,) = build(ours("exact", activation, log_det=Exact()), net).eval().each()
    x = mixture(net.features, 64)
    v = torch.randn_like(x)

    def products() -> None:
        given = x.detach().requires_grad_()
        value = block.residual(given)
        for _ in range(PRODUCTS):
            torch.autograd.grad(value, given, v, retain_graph=True)

    def exact() -> None:
        with torch.no_grad():
            block(x)

    times = settings.clock.alternate({"products": products, "exact": exact})
    return [
        Row(
            "exact log-det (ms)",
            f"{net}, batch 64",
            f"{PRODUCTS} vector-Jacobian products",
            f"{activation}, cut at 64",
            times.median("products"),
            times.median("exact"),
            ShareOf(1.0, 0.6),
            len(times.rounds["exact"]),
        )
    ]
