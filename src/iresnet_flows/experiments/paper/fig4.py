"""Figure 4: bias and standard deviation of log-determinants against the number of terms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iresnet_flows.experiments.drawing import COLOURS, save
from iresnet_flows.experiments.markdown import markdown_table
from iresnet_flows.experiments.paper.estimates import (
    BLOCKS,
    COEFFICIENTS,
    EFFORTS,
    MODELS,
    PROBES,
    SERIES,
    TERMS,
    Flow,
    Outcome,
    perform,
)
from iresnet_flows.experiments.paper.log_dets import ROUNDING
from iresnet_flows.experiments.paper.trainings import each_trained
from iresnet_flows.experiments.storage import write_json, write_text
from iresnet_flows.experiments.studies import Settings, chosen
from iresnet_flows.experiments.terminal import narrow_table, say_place, terminal
from iresnet_flows.experiments.versions import versions

__all__ = ["study"]

SHOWN = (1, 2, 5, 10, 20)
LOWEST = 1e-8
CLEAR = 3  # standard errors
TITLES = {
    "gaussian": "series, Gaussian probe (i-ResNet)",
    "series": "series, Rademacher probe, exact tr J (ours)",
    "residual flows": "roulette, Gaussian probe (Residual Flows)",
    "roulette": "roulette, Rademacher probe, exact tr J (ours)",
    "tail": "series to a certified tolerance (ours), and its stated bound",
}
ROULETTES = {"residual flows": "roulette, Residual Flows", "roulette": "roulette, ours"}
LOOKS = {
    "gaussian": (COLOURS[1], "o"),
    "series": (COLOURS[0], "s"),
    "residual flows": (COLOURS[4], "D"),
    "roulette": (COLOURS[2], "P"),
    "tail": (COLOURS[3], "v"),
}
SERIES_HEADS = (
    *("data", "c", "terms", "bias", "Theorem 3", "std, Gaussian", "std, ours"),
    "ratio",
)
POINT_HEADS = ("data", "c", "estimator", "terms", "bias", "± or bound", "std")
EXPLANATION = (
    "Log-determinants in nats of the {blocks} blocks of flows that were trained by maximum "
    "likelihood with the bound c on each of the three linear layers of a branch, at {points} test "
    "points, in float64: means over blocks and points, for one probe. The bias of a series, by "
    "size, is exact, from the traces of powers of the dense Jacobian; Theorem 3 bounds it by "
    "-d (ln(1 - L) + Σ Lᵏ/k) with the certified L of each block. The mean error of {count} probes "
    "is shown where it is above three times its standard error, which is dotted; that of a "
    "roulette, which has no bias, is shown at its mean number of terms, with its standard error. "
    "For a certified tolerance, what is left out for the probes that were drawn is joined to the "
    "bound that the estimate states. Standard deviations of series are exact (lines) and drawn "
    "(points); with tr J exact that of one term is zero."
)


def study(settings: Settings) -> None:
    """Train flows with several bounds, and measure estimators on their blocks.

    Raises:
        UsageError: A model is unknown, there are several seeds, or a training failed.
    """
    models = chosen("model", settings.models, tuple(MODELS))
    seed = settings.seed("fig4")
    effort, console = EFFORTS[settings.scale], terminal()
    flows = [
        Flow(
            *(model, c, seed, effort, settings.minutes),
            settings.out / "runs" / f"fig4-{settings.scale}-{model}-c{c:g}-seed{seed}",
        )
        for model in models
        for c in COEFFICIENTS
    ]
    found = each_trained(flows, settings, "flows", perform, console)

    save(settings.out / "fig4.png", picture(found))
    report(settings, found)
    for heads, rows in ((SERIES_HEADS, series_rows(found)), (POINT_HEADS, point_rows(found))):
        console.print(narrow_table(heads, rows, words={"data", "estimator"}))
    for line in sentences(found):
        console.print(line)
    say_place(console, "The figure is at", settings.out / "fig4.png")


def picture(found: Sequence[Outcome]) -> Figure:
    """For each data set a row of biases above a row of deviations, a column for each bound."""
    models = list(dict.fromkeys(each.flow.model for each in found))
    figure = Figure(figsize=(10, 4.9 * len(models) + 0.9), layout="constrained", dpi=130)
    axes = figure.subplots(
        2 * len(models), len(COEFFICIENTS), sharex=True, sharey="row", squeeze=False
    )
    for i, each in enumerate(found):
        row, column = divmod(i, len(COEFFICIENTS))
        bias, deviation = axes[2 * row, column], axes[2 * row + 1, column]
        draw_bias(bias, each)
        draw_deviation(deviation, each)
        bounds = dict.fromkeys(f"{f(each.lipschitz):.3f}" for f in (min, max))
        said = f"{each.flow.model}, d = {each.features}, c = {each.flow.coefficient:g}"
        bias.set_title(f"{said}\nL = {' to '.join(bounds)}", fontsize=10)
        if column == 0:
            bias.set_ylabel("bias in nats, by size")
            deviation.set_ylabel("standard deviation in nats")
    for axis in axes[-1]:
        axis.set_xlabel("number of terms")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def draw_bias(axis: Axes, each: Outcome) -> None:
    counts = range(1, TERMS + 1)
    axis.plot(counts, each.bound, "--", color="black", label="Theorem 3's bound")
    axis.plot(counts, each.left_out, color="black", label="bias of both series, exact")
    for name in SERIES:
        colour, marker = LOOKS[name]
        x, biases, errors, _ = zip(*each.drawn[name], strict=True)
        pairs = list(zip(biases, errors, strict=True))
        seen = [abs(bias) if abs(bias) > CLEAR * error else math.nan for bias, error in pairs]
        axis.plot(x, [positive(error) for error in errors], ":", color=colour)
        axis.plot(x, seen, marker, color=colour, markersize=5, label=TITLES[name])
    for name in ROULETTES:
        colour, marker = LOOKS[name]
        terms, bias, error, _ = each.drawn[name][0]
        axis.errorbar(terms, abs(bias), error, color=colour, linewidth=1)
        axis.plot(terms, abs(bias), marker, color=colour, markersize=8, label=TITLES[name])
    colour, marker = LOOKS["tail"]
    for tail in each.tails:
        axis.plot([tail.terms] * 2, [tail.bias, tail.stated], color=colour, linewidth=1)
        axis.plot(tail.terms, tail.stated, "_", color=colour, markersize=9)
        axis.plot(tail.terms, tail.bias, marker, color=colour, markersize=6)
    axis.lines[-1].set_label(TITLES["tail"])
    axis.set_yscale("log")
    axis.set_ylim(LOWEST, 3 * max(each.bound))


def draw_deviation(axis: Axes, each: Outcome) -> None:
    for name, rows in each.drawn.items():
        colour, marker = LOOKS[name]
        x, _, _, deviation = zip(*rows, strict=True)
        if name in SERIES:
            axis.plot(x, [positive(value) for value in each.exact[name]], color=colour)
        size = 5 if name in SERIES else 8
        axis.plot(x, [positive(value) for value in deviation], marker, color=colour, ms=size)
    axis.set_yscale("log")


def positive(value: float) -> float:
    """The value, or NaN where it is zero but for rounding, and is not to be drawn."""
    return value if value > ROUNDING else math.nan


def report(settings: Settings, found: Sequence[Outcome]) -> None:
    """The numbers as Markdown and JSON."""
    effort = EFFORTS[settings.scale]
    record = {
        "command": settings.command,
        "scale": settings.scale,
        "versions": versions(("numpy", "matplotlib")),
        "effort": asdict(effort),
        "rows": [row(each) for each in found],
    }
    write_json(settings.out / "fig4.json", record)
    parts = [
        f"`{settings.command}`",
        "![Bias and standard deviation against the number of terms](fig4.png)",
        EXPLANATION.format(blocks=BLOCKS, points=effort.points, count=PROBES * effort.repeats),
        markdown_table(SERIES_HEADS, series_rows(found)),
        markdown_table(POINT_HEADS, point_rows(found)),
        *sentences(found),
    ]
    write_text(settings.out / "fig4.md", "\n\n".join(parts) + "\n")


def row(each: Outcome) -> dict[str, Any]:
    values = asdict(each)
    return {**values, "flow": each.flow.record()}


def series_rows(found: Sequence[Outcome]) -> list[list[str]]:
    """What is exact of both series, for some numbers of terms."""
    return [
        [
            *(each.flow.model, f"{each.flow.coefficient:g}", str(n)),
            *(f"{each.left_out[n - 1]:.1e}", f"{each.bound[n - 1]:.1e}"),
            *(f"{gaussian:.3f}", f"{series:.3f}"),
            f"{gaussian / series:.1f}" if series else "",
        ]
        for each in found
        for n in SHOWN
        for gaussian, series in [(each.exact["gaussian"][n - 1], each.exact["series"][n - 1])]
    ]


def point_rows(found: Sequence[Outcome]) -> list[list[str]]:
    """The roulettes, and the series that stop by their certified bound."""
    rows = []
    for each in found:
        named = [each.flow.model, f"{each.flow.coefficient:g}"]
        for name, title in ROULETTES.items():
            terms, bias, error, deviation = each.drawn[name][0]
            cells = [f"{terms:.1f}", f"{bias:.1e}", f"{error:.1e}", f"{deviation:.3f}"]
            rows.append([*named, title, *cells])
        for tail in each.tails:
            cells = [f"{tail.terms:.1f}", f"{tail.bias:.1e}", f"{tail.stated:.1e}", ""]
            rows.append([*named, f"series, tolerance {tail.tolerance:g}", *cells])
    return rows


def sentences(found: Sequence[Outcome]) -> Iterable[str]:
    """Whether bounds are kept, and whether what was drawn agrees with what is exact."""
    broken = [each for each in found if each.tightest > 1]
    tightest = max(each.tightest for each in found)
    verdict = (
        f"is broken in {len(broken)} of {len(found)} flows" if broken else "is kept everywhere"
    )
    yield (
        f"Theorem 3's bound {verdict}, at every point, block and number of terms: the bias is at "
        f"most {tightest:.2g} of it."
    )
    stated = max(tail.tightest for each in found for tail in each.tails)
    kept = "keep" if stated <= 1 else "break"
    yield (
        f"Certified tolerances {kept} their stated bounds: at most {stated:.2g} of a bound is "
        "left out."
    )
    far = [abs(value) for each in found for values in each.far.values() for value in values]
    near = sum(value <= 2 for value in far)
    yield (
        f"The drawn biases of the series lie within two standard errors of the exact ones in "
        f"{near} of {len(far)} cases, {max(far):.1f} at most; all lengths of a Gaussian series "
        "share their probes."
    )
    residue = max(each.residue for each in found)
    yield f"The whole series and slogdet of the dense I + J differ by at most {residue:.0e}."
