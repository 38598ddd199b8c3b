"""All approximations of all posteriors, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.posteriors.npe import UNLIMITED
from iresnet_flows.experiments.posteriors.report import write_report
from iresnet_flows.experiments.posteriors.runs import (
    TITLES,
    Effort,
    Outcome,
    Spec,
    perform,
)
from iresnet_flows.experiments.posteriors.targets import TARGETS
from iresnet_flows.experiments.posteriors.tasks import TASKS, Simulator
from iresnet_flows.experiments.processes import workers
from iresnet_flows.experiments.storage import claim_folder
from iresnet_flows.experiments.studies import check_scale, chosen
from iresnet_flows.experiments.terminal import counter

__all__ = ["Settings", "settled", "study"]

SEEDS = (0, 1, 2)
OBSERVATIONS = 10
EFFORTS = {
    "quick": Effort(seconds=30, simulations=10_000, epochs=UNLIMITED, draws=5_000),
    "paper": Effort(seconds=600, simulations=10_000, epochs=UNLIMITED, draws=10_000),
}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Arguments:
        targets: Names of `TARGETS`.
        methods: Names of guides and of estimators.
        seeds: The seeds of each.
        effort: How much is spent on each run.
        observation: The number of the observation, of tasks that have several.
    """

    targets: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    effort: Effort
    observation: int


def study(
    settings: Settings,
    data_dir: Path | None,
    folder: Path,
    jobs: int,
    resume: bool,
    command: str,
    console: Console,
) -> list[Outcome]:
    """Make and measure every approximation; write tables and figures as they come, in order.

    Runs share no state and have one thread each, so that equal time is equal work while there are
    no more jobs than cores.

    Raises:
        DataError: The reference draws of a target are missing or cannot be used.
        UsageError: `resume` was asked for with other settings, or there is nothing to do.
        KeyboardInterrupt: As given; the runs that were finished stay for `resume`.
    """
    specs = planned(settings, data_dir, folder)
    firsts = list({spec.target: spec for spec in specs}.values())
    for spec in firsts:
        spec.load()
    claim_folder(folder, asdict(settings), resume)

    outcomes: list[Outcome] = []
    with workers(jobs) as pool, counter(console) as progress:
        task = progress.add_task("reference draws", total=len(firsts))
        for _ in pool.map(keep_reference, firsts):
            progress.advance(task)
        task = progress.add_task("approximations", total=len(specs))
        runs = [pool.submit(perform, spec) for spec in specs]
        for _ in as_completed(runs):
            outcomes = [run.result() for run in runs if run.done()]
            write_report(folder, outcomes, asdict(settings), command)
            progress.advance(task)
    return outcomes


def planned(settings: Settings, data_dir: Path | None, folder: Path) -> list[Spec]:
    """The runs, seed by seed, so that a study that was stopped has something of everything."""
    specs = [
        Spec(
            kind,
            target,
            method,
            seed,
            settings.effort,
            settings.observation,
            data_dir,
            folder,
            drawn=seed == settings.seeds[0],
        )
        for seed in settings.seeds
        for kind, methods in TITLES.items()
        for target in settings.targets
        if kind == "guides" or simulated(target)
        for method in methods
        if method in settings.methods
    ]
    if not specs:
        raise UsageError(
            f"nothing to do: none of {', '.join(settings.methods)} goes with "
            f"{', '.join(settings.targets)}."
        )
    return specs


def simulated(target: str) -> bool:
    return isinstance(TASKS.get(target), Simulator)


def keep_reference(spec: Spec) -> None:
    """Draw once what every run of the target reads."""
    spec.load().reference()


def settled(
    scale: str,
    minutes: float | None,
    targets: Sequence[str] | None,
    methods: Sequence[str] | None,
    seeds: Sequence[int] | None,
    observation: int,
) -> Settings:
    """The settings of a command line.

    Raises:
        UsageError: A name is unknown, or the observation is not one of ten.
    """
    check_scale(scale)
    if not 1 <= observation <= OBSERVATIONS:
        raise UsageError(f"--observation must be 1 to {OBSERVATIONS}, got {observation}.")
    effort = EFFORTS[scale]
    if minutes is not None:
        effort = replace(effort, seconds=60 * minutes)
    known = tuple(dict.fromkeys(name for names in TITLES.values() for name in names))
    return Settings(
        chosen("target", targets, TARGETS),
        chosen("model", methods, known),
        tuple(dict.fromkeys(seeds or SEEDS)),
        effort,
        observation,
    )
