"""The studies of the paper: its tables and figures, each in a module of its own.

Each module of `STUDIES` offers ``study(settings: Settings) -> None``, which trains what it needs,
prints its tables, writes them with their figures and a JSON file to ``settings.out``, and raises
`UsageError` where the settings make no sense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from iresnet_flows.errors import UsageError, unknown

__all__ = ["SCALES", "STUDIES", "Settings", "check_scale", "chosen", "study"]

SCALES = ("quick", "paper")
STUDIES = ("table1", "table2", "table3", "table4", "fig1", "fig2", "fig3", "fig4", "fig5")


@dataclass(frozen=True)
class Settings:
    """What a study is asked for.

    Arguments:
        scale: ``quick``, for two cores and twenty minutes, or ``paper``.
        minutes: The time of each training; None for that of the study's scale.
        models: The names of the models; None for all of the study.
        seeds: The seeds of each training; None for those of the study's scale.
        data_dir: Where data sets are, as `load_images` takes it.
        out: The folder of the results, which is there.
        resume: Go on with what is in it.
        jobs: Trainings at a time, of one thread each.
        command: The command line, for the record.
        data: The name of its images; None for those of the study's scale.

    Raises:
        UsageError: The scale is unknown.
    """

    scale: str
    minutes: float | None
    models: tuple[str, ...] | None
    seeds: tuple[int, ...] | None
    data_dir: Path | None
    out: Path
    resume: bool
    jobs: int
    command: str
    data: str | None = None

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def seed(self, study: str) -> int:
        """The seed of a study that is of one.

        Raises:
            UsageError: Several are asked for.
        """
        seeds = self.seeds or (0,)
        if len(seeds) > 1:
            raise UsageError(f"{study} is of one seed, got {len(seeds)}: give --seed once.")
        return seeds[0]


def check_scale(scale: str) -> None:
    if scale not in SCALES:
        raise UsageError(f"--scale must be one of {', '.join(SCALES)}, got {scale!r}.")


def chosen(what: str, names: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The models, or targets, that a study is asked for, or all of it.

    Raises:
        UsageError: It has none of that name.
    """
    for name in names or ():
        if name not in known:
            raise UsageError(unknown(what, name, known))
    return tuple(dict.fromkeys(names or known))


def study(name: str) -> Callable[[Settings], None]:
    """The study of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in STUDIES:
        raise UsageError(unknown("study", name, ("posteriors", *STUDIES)))
    module = import_module(f"iresnet_flows.experiments.paper.{name}")
    return cast("Callable[[Settings], None]", module.study)
