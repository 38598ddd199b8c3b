"""Which learning rate a contender of the comparison takes, by short trainings.

Run as ``python docs/studies/rates.py --jobs 2 --models realnvp nsf``; with the models that are
named there it prints the table of docs/compare.md. Each cell is the best validation loss of a
short training with that rate, and everything else as in ``iresnet-flows compare``.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from options import of_trainings, positive
from rich.console import Console

from iresnet_flows.errors import DataError, MissingExtra, UsageError
from iresnet_flows.experiments import processes
from iresnet_flows.experiments.budgets import Budget, Diverged
from iresnet_flows.experiments.comparison.contenders import CONTENDERS, build
from iresnet_flows.experiments.comparison.training import Training, fit
from iresnet_flows.experiments.data import load
from iresnet_flows.experiments.markdown import markdown_table

RATES = (3e-3, 1e-2, 3e-2)
ROWS = {"power": 200_000}


def loss(model: str, name: str, rate: float, seconds: float, data_dir: Path | None) -> float:
    """The best validation loss in nats; infinite where a training diverges."""
    torch.set_num_threads(1)
    dataset = load(name, data_dir).first(ROWS.get(name))
    contender = replace(CONTENDERS[model], learning_rate=rate)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  from which normflows draws
    flow = build(contender, dataset.features)
    training = Training(flow, contender, dataset, Budget(minutes=seconds / 60), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fit(training, Path(folder), "cpu", lambda *_: None)
        except Diverged:
            return float("inf")
    return training.best


def main(given: Sequence[str] | None = None) -> None:
    parser = of_trainings(__doc__, seconds=10.0)
    parser.add_argument(
        "--rates",
        nargs="+",
        type=positive,
        default=list(RATES),
        help="by default 0.003, 0.01 and 0.03",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        choices=CONTENDERS,
        default=list(CONTENDERS),
        metavar="MODEL",
        help="by default all contenders; a wrong name lists them",
    )
    options = parser.parse_args(given)
    try:
        for name in options.data:
            load(name, options.data_dir)
        print(table(options))
    except (DataError, MissingExtra, UsageError) as error:
        parser.error(str(error))


def table(options: Namespace) -> str:
    """The table of all rates, from as many trainings."""
    losses: dict[tuple[str, str, float], float] = {}
    console = Console(stderr=True)
    keys = [
        (model, name, rate)
        for model in options.models
        for name in options.data
        for rate in options.rates
    ]
    with processes.workers(options.jobs) as pool:
        jobs = {pool.submit(loss, *key, options.seconds, options.data_dir): key for key in keys}
        for future in as_completed(jobs):
            losses[jobs[future]] = future.result()
            console.print(f"{len(losses)} of {len(jobs)}: {jobs[future]} {future.result():.3f}")

    rows = [
        [f"{model}, {rate:g}", *(f"{losses[model, name, rate]:.3f}" for name in options.data)]
        for model in options.models
        for rate in options.rates
    ]
    return markdown_table(["contender, rate", *options.data], rows)


if __name__ == "__main__":
    main()
