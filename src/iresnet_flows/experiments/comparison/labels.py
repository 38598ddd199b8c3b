"""How the numbers of a comparison are headed and written, and what the paper says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from iresnet_flows.experiments.comparison.results import PROPERTIES

__all__ = [
    "MEASURES",
    "PAPER",
    "PROBE_TITLES",
    "TITLES",
    "cell",
    "claim",
    "differences",
    "differs",
    "mark",
    "probability",
    "word",
]

TITLES = dict(
    zip(
        PROPERTIES,
        (
            "free-form",
            "analytic forward",
            "analytic inverse",
            "non-volume preserving",
            "exact likelihood",
            "unbiased log-det",
        ),
        strict=True,
    )
)

# Behrmann et al. 2019, Table 1, in the order of PROPERTIES; it does not list the others.
PAPER = {
    "resnet": (True, True, None, None, None, None),
    "nice": (False, True, True, False, True, None),
    "i-revnet": (False, True, True, False, True, None),
    "realnvp": (False, True, True, True, True, None),
    "glow": (False, True, False, True, True, None),
    "ffjord": (True, False, False, True, False, True),
    "i-resnet": (True, True, False, True, False, False),
}

REASONS = {
    ("glow", "analytic_inverse", True): (
        "the linear layers are kept in LU form here, and triangular solves invert them"
    ),
    ("i-resnet", "exact_likelihood", True): (
        "the log-determinant is exact here, from a determinant of the size of the branch's "
        "narrowest width, where the paper truncates a power series"
    ),
    ("i-resnet", "unbiased_log_det", True): (
        "the stochastic estimate is Russian roulette here (Chen et al. 2019), where the paper "
        "truncates a power series"
    ),
}

MEASURES = {
    "nats": "nats",
    "bits_per_dim": "bits/dim",
    "inverse_error": "inverse error",
    "parameters": "params",
    "train_seconds": "train s",
    "steps": "steps",
    "step_ms": "step ms",
    "log_prob_ms": "log-prob ms",
    "sample_ms": "sample ms",
    "peak_mb": "peak MB",
}

PROBE_TITLES = {
    "inverse_error_64": "inverse error, float64",
    "inverse_gradient_error": "gradient through the inverse, error",
    "weighted_gradient_error": "gradient of a weighted loss, error",
    "log_prob_noise": "log-prob noise",
    "lipschitz_bound": "Lipschitz bound",
    "log_prob_evaluations": "evaluations a log-prob",
    "sample_evaluations": "evaluations a sample",
    "takes_context": "takes a context",
    "nan_runs": "failed runs",
}

ERRORS = (
    "inverse_error",
    "inverse_error_64",
    "inverse_gradient_error",
    "weighted_gradient_error",
    "log_prob_noise",
)


def word(value: bool | None) -> str:
    """yes, no or n/a."""
    return "n/a" if value is None else "yes" if value else "no"


def claim(row: dict[str, Any], name: str) -> bool | None:
    """What the paper's Table 1 says of a contender's property, None where it does not apply.

    Raises:
        KeyError: It does not list the contender.
    """
    return dict(zip(PROPERTIES, PAPER[row["model"]], strict=True))[name]


def differs(row: dict[str, Any], name: str) -> bool:
    """Whether a property is measured, and as another than the paper claims."""
    return row[name] is not None and row["model"] in PAPER and claim(row, name) != row[name]


def mark(row: dict[str, Any], name: str) -> str:
    """yes, no, n/a or failed, with an asterisk where the paper says otherwise."""
    if row["runs"] == row["nan_runs"]:
        return "failed"
    return word(row[name]) + "*" * differs(row, name)


def differences(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A sentence on each property that the paper has otherwise."""
    for row in rows:
        for name in PROPERTIES:
            if differs(row, name):
                why = REASONS.get((row["model"], name, row[name]))
                yield (
                    f"{row['title']}, {TITLES[name]}: measured {word(row[name])}, the paper says "
                    f"{word(claim(row, name))}" + (f"; {why}." if why else ".")
                )


def cell(row: dict[str, Any], name: str) -> str:
    """A measure or a probe as tables write it; a missing one as ``failed`` or ``n/a``."""
    value = row[name]
    if name == "nan_runs":
        return f"{value} of {row['runs']}"
    if row["runs"] == row["nan_runs"]:
        return "failed"
    if value is None or math.isnan(value):
        return "n/a"
    if isinstance(value, bool):
        return word(value)
    if name == "nats":
        error = row["nats_standard_error"]
        return f"{value:.3f}" if error is None else f"{value:.3f}±{error:.3f}"
    return written(name, value)


def written(name: str, value: float) -> str:
    """A number: of errors the size, of others three digits, and all before the point."""
    if name in ERRORS and value:
        return f"{value:.1e}"
    if name == "bits_per_dim":
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def probability(p: float) -> str:
    """A p value as sentences write it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
