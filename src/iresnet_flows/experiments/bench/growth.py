"""How times grow with the size of the problem."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from iresnet_flows.experiments.bench.contestants import OURS, Contestant, Net
from iresnet_flows.experiments.bench.flows import build
from iresnet_flows.experiments.bench.rows import Point
from iresnet_flows.experiments.bench.settings import Case, Settings, Task
from iresnet_flows.experiments.bench.speed import EVALUATIONS, flow_runs
from iresnet_flows.experiments.seeds import seeded

__all__ = ["tasks"]

BASE = {"features": 16, "width": 128, "depth": 2, "batch": 64}
WARM = 5


def tasks(settings: Settings, peers: Sequence[Contestant]) -> list[Task]:
    """One for each size of each sweep."""
    return [
        Task(f"growth, {sweep} {size}", partial(points, settings, sweep, size, peers))
        for sweep, sizes in settings.sweeps.items()
        for size in sizes
    ]


def points(settings: Settings, sweep: str, size: int, peers: Sequence[Contestant]) -> list[Point]:
    """The times of all contestants at one size; all others are as in `BASE`."""
    at = {**BASE, sweep: size}
    net = Net(at["features"], (at["width"],) * at["depth"], blocks=1)
    case = Case(net, at["batch"], None)
    flows = {c.title: build(c, net) for c in (OURS, *peers)}
    found: list[Point] = []
    with seeded():
        times = settings.growth.alternate(flow_runs(flows, case, WARM))
        found += [Point(sweep, size, "training step", t, times.median(t)) for t in flows]
        for flow in flows.values():
            flow.eval()
        for measure, (run, _) in EVALUATIONS.items():
            if measure.startswith("inverse"):
                continue
            with torch.no_grad():
                times = settings.growth.alternate(run(flows, case))
            name = measure.removesuffix(" (ms)")
            found += [Point(sweep, size, name, t, times.median(t)) for t in flows]
    return found
