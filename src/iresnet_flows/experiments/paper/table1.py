"""Table 1: the properties of the paper's flows, measured on trained models beside its claims."""

from __future__ import annotations

from iresnet_flows.experiments.comparison.contenders import chosen
from iresnet_flows.experiments.comparison.labels import PAPER
from iresnet_flows.experiments.comparison.report import terminal_report
from iresnet_flows.experiments.paper.comparisons import compared
from iresnet_flows.experiments.studies import Settings
from iresnet_flows.experiments.terminal import say_place, terminal

__all__ = ["MODELS", "study"]

MODELS = tuple(PAPER)
DATA = {"quick": ("digits",), "paper": ("digits", "power")}
MINUTES = {"quick": 1.0, "paper": 20.0}
SEEDS = {"quick": (0,), "paper": (0, 1, 2)}


def study(settings: Settings) -> None:
    """Train the systems of Table 1, measure their properties, and write the report of `compare`.

    Other names of `compare` may be asked for; the paper claims nothing of them.

    Raises:
        DataError: The data are missing or cannot be used.
        UsageError: A model is unknown.
    """
    console = terminal()
    results = compared(
        settings,
        DATA[settings.scale],
        chosen(settings.models or MODELS),
        settings.minutes or MINUTES[settings.scale],
        settings.seeds or SEEDS[settings.scale],
        console,
    )
    for part in terminal_report(results):
        console.print(part)
    say_place(console, "The page is at", settings.out / "report.html")
