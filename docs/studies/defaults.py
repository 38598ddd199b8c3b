"""Which defaults an i-ResNet should have: one factor at a time, at equal time.

Each run trains the flow of `iresnet-flows compare` with one setting changed, for the same
processor time in its training steps, and leaves one file; the same command does the runs that are
missing and writes the tables anew.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from nflows.flows.base import Flow
from options import count, of_trainings
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from iresnet_flows import CayleyBlock, LipschitzMLP
from iresnet_flows.errors import DataError, InverseNotConverged, MissingExtra, UsageError
from iresnet_flows.experiments import processes
from iresnet_flows.experiments.averages import standard_error
from iresnet_flows.experiments.budgets import Budget, Diverged
from iresnet_flows.experiments.comparison.contenders import CONTENDERS
from iresnet_flows.experiments.comparison.evaluation import in_parts
from iresnet_flows.experiments.comparison.training import Training, fit, prepared
from iresnet_flows.experiments.data import load
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.experiments.markdown import markdown_table
from iresnet_flows.experiments.storage import output_folder, read_json, write_json, write_text
from iresnet_flows.layers import Inverted
from iresnet_flows.nflows import InvertibleResidualFlow

VALIDATION_ROWS, TEST_ROWS = 1000, 5000
PRESENT_LAST = 0.1
INTERRUPTED = 130


@dataclass(frozen=True)
class Setting:
    """A flow and how it is trained.

    Arguments:
        activation: That of the branches.
        lipschitz: The bound of each branch.
        blocks: The number of blocks.
        elementwise: The number of blocks of each feature alone before them.
        width: The features that each of the two hidden layers of a branch hands on.
        last: The norm that the last layer of a branch starts from.
        phases: Whether hidden biases start spread over a period (of `csin` and `sin`), or at 0.
        learning_rate: That of AdamW at the start.
        weight_decay: That of AdamW.
        layer: ``residual``, ``cayley``, or ``alternating`` with inverted residual blocks.
    """

    activation: str = "csin"
    lipschitz: float = 0.97
    blocks: int = 8
    elementwise: int = 4
    width: int = 64
    last: float = PRESENT_LAST
    phases: bool = True
    learning_rate: float = CONTENDERS["i-resnet"].learning_rate
    weight_decay: float = CONTENDERS["i-resnet"].weight_decay
    layer: str = "residual"


DEFAULT = Setting()
SETTINGS = {
    "default": DEFAULT,
    **{
        f"activation {name}": replace(DEFAULT, activation=name)
        for name in ("sin", "lipswish", "clipswish", "elu", "tanh", "softplus")
    },
    **{f"bound {bound}": replace(DEFAULT, lipschitz=bound) for bound in (0.7, 0.9, 0.99)},
    **{
        f"blocks x width {blocks} x {width}": replace(DEFAULT, blocks=blocks, width=width)
        for blocks, width in ((4, 128), (8, 128), (16, 48))
    },
    **{f"elementwise blocks {count}": replace(DEFAULT, elementwise=count) for count in (0, 2, 8)},
    "start last layer x 1": replace(DEFAULT, last=1.0),
    "start hidden biases 0": replace(DEFAULT, phases=False),
    **{
        f"learning rate {rate}": replace(DEFAULT, learning_rate=rate)
        for rate in (1e-3, 2e-3, 5e-3)
    },
    **{f"weight decay {decay}": replace(DEFAULT, weight_decay=decay) for decay in (0.0, 0.3)},
    "layer Cayley": replace(DEFAULT, layer="cayley"),
    "layer alternating": replace(DEFAULT, layer="alternating"),
}


def build(setting: Setting, features: int) -> Flow:
    """The flow of that setting; what is no option of the library is changed afterwards."""
    flow = InvertibleResidualFlow(
        features,
        setting.width,
        setting.blocks,
        lipschitz=setting.lipschitz,
        activation=setting.activation,
        num_elementwise_layers=setting.elementwise,
    )
    for branch in flow.modules():
        if isinstance(branch, LipschitzMLP):
            with torch.no_grad():
                branch.weights[-1].mul_(setting.last / PRESENT_LAST)
                if not setting.phases:
                    for bias in list(branch.biases)[:-1]:
                        bias.zero_()

    for i, transform in enumerate(flow._transform._transforms[1::2]):
        if setting.layer == "cayley":
            transform.layer = CayleyBlock(transform.layer.branch)
        elif setting.layer == "alternating" and i % 2:
            transform.layer = Inverted(transform.layer)
    return flow


class Timed(Training):
    """A training whose clock is the processor's, and runs in training steps alone.

    Neither what else the machine does nor the time of validation makes one setting's budget
    smaller than another's.
    """

    used = 0.0
    started = 0.0

    def spent(self) -> float:
        return self.budget.spent(self.global_step, self.used)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.started = time.process_time()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.used += time.process_time() - self.started


@cache
def data(name: str, data_dir: Path | None) -> Dataset:
    """The data, with no more rows for validation and test than such runs can afford to read."""
    found = load(name, data_dir)
    return replace(
        found, validation=found.validation[:VALIDATION_ROWS], test=found.test[:TEST_ROWS]
    )


@dataclass(frozen=True)
class Job:
    """One run: which setting, on which data, with which seed, for how long, and its file."""

    name: str
    data: str
    seed: int
    seconds: float
    data_dir: Path | None
    file: Path


def do(job: Job) -> None:
    """Train, read the test rows, keep the result."""
    torch.set_num_threads(1)
    setting, dataset = SETTINGS[job.name], data(job.data, job.data_dir)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(job.seed)
        flow = build(setting, dataset.features)
        recipe = replace(
            CONTENDERS["i-resnet"],
            learning_rate=setting.learning_rate,
            weight_decay=setting.weight_decay,
        )
        budget = Budget(minutes=job.seconds / 60)
        training = Timed(flow, recipe, dataset, budget, job.seed)
        record: dict[str, Any] = {"data": job.data, "error": None, "nats": None, "row_nats": []}
        try:
            fit(training, Path(folder), "cpu", lambda *_: None)
            with torch.no_grad():
                rows = -in_parts(flow.log_prob, prepared(dataset, dataset.test))
            record["row_nats"] = (rows + dataset.log_scale).tolist()
            record["nats"] = statistics.fmean(record["row_nats"])
        except (Diverged, InverseNotConverged) as failure:
            record["error"] = str(failure)

    record |= {
        "model": job.name,
        "seed": job.seed,
        "parameters": sum(p.numel() for p in flow.parameters()),
        "steps": training.steps,
        "train_seconds": training.used,
        "curve": training.curve,
    }
    write_json(job.file, record)


def jobs_of(options: Namespace, folder: Path) -> Iterator[Job]:
    """All runs, those of the first seed first, so that a study cut short has every setting."""
    for seed in range(options.seeds):
        for name in options.settings:
            for data_name in options.data:
                slug = re.sub(r"[^a-z0-9.]+", "-", f"{Path(data_name).stem} {name}".lower())
                file = folder / "runs" / f"{slug}-seed{seed}.json"
                yield Job(name, data_name, seed, options.seconds, options.data_dir, file)


def run_all(jobs: Sequence[Job], workers: int, console: Console) -> None:
    """Do the jobs, in this process if one at a time, and show how many are done."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("runs", total=len(jobs))

        def done(job: Job) -> None:
            progress.console.print(f"{job.data}, {job.name}, seed {job.seed}: {outcome(job)}")
            progress.advance(task)

        if workers == 1:
            for job in jobs:
                do(job)
                done(job)
            return

        with processes.workers(workers) as pool:
            futures: dict[Future[None], Job] = {pool.submit(do, job): job for job in jobs}
            for future in as_completed(futures):
                future.result()
                done(futures[future])


def outcome(job: Job) -> str:
    record = read_json(job.file)
    return record["error"] or f"{record['nats']:.3f} nats after {record['steps']} steps"


Runs = dict[tuple[str, str], list[dict[str, Any]]]


def gathered(jobs: Sequence[Job]) -> Runs:
    """What is done, by data and setting."""
    runs: Runs = {}
    for job in jobs:
        if job.file.exists():
            runs.setdefault((job.data, job.name), []).append(read_json(job.file))
    return runs


def training_variance(runs: Runs, data_name: str) -> float:
    """The variance of the test nats over seeds, pooled over the settings; 0 with one seed."""
    found = []
    for (where, _), group in runs.items():
        nats = [run["nats"] for run in group if not run["error"]]
        if where == data_name and len(nats) > 1:
            found.append(statistics.variance(nats))
    return statistics.fmean(found) if found else 0.0


def loss(runs: Runs, data_name: str, name: str) -> str:
    """The cell of a setting: nats, and their difference from the default's on the same rows.

    The standard errors have two parts: that of a mean over test rows, paired with the default's,
    and that of a training, pooled over the settings.
    """
    good = {r["seed"]: r for r in runs.get((data_name, name), []) if not r["error"]}
    base = {r["seed"]: r for r in runs.get((data_name, "default"), []) if not r["error"]}
    if not good:
        return "failed" if (data_name, name) in runs else ""
    variance = training_variance(runs, data_name)
    nats = statistics.fmean(r["nats"] for r in good.values())
    both = good.keys() & base.keys()
    if name == "default" or not both:
        rows = mean_rows([r["row_nats"] for r in good.values()])
        error = (standard_error(rows) ** 2 + variance / len(good)) ** 0.5
        return f"{nats:.3f} ± {error:.3f}"

    ours, theirs = (mean_rows([group[s]["row_nats"] for s in both]) for group in (good, base))
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    gap, error = statistics.fmean(gaps), standard_error(gaps)
    error = (error**2 + 2 * variance / len(both)) ** 0.5
    text = f"{gap:+.3f} ± {error:.3f}"
    return f"{nats:.3f} ({f'**{text}**' if gap < -2 * error else text})"


def mean_rows(rows: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(row) for row in zip(*rows, strict=True)]


def steps(runs: Runs, data_name: str, name: str) -> str:
    """The cell of a setting: the training steps that its time was enough for."""
    good = [r["steps"] for r in runs.get((data_name, name), []) if not r["error"]]
    return f"{statistics.fmean(good):.0f}" if good else ""


def page(runs: Runs, names: Sequence[str], sets: Sequence[str]) -> str:
    """Both tables in Markdown."""
    tables = []
    for title, cell in (("test loss in nats", loss), ("training steps", steps)):
        rows = []
        for name in names:
            counts = {len(runs.get((s, name), [])) for s in sets}
            seeds = "-".join(str(c) for c in sorted({min(counts), max(counts)}))
            rows.append([name, *(cell(runs, s, name) for s in sets), seeds])
        tables.append(markdown_table([title, *sets, "seeds"], rows) + "\n")
    return "\n".join(tables)


def arguments(given: Sequence[str] | None) -> Namespace:
    parser = of_trainings(__doc__, seconds=20.0)
    parser.add_argument("--seeds", type=count, default=2, help="of each setting, 2 by default")
    parser.add_argument(
        "--out", type=Path, default=Path("iresnet-defaults"), help="by default iresnet-defaults"
    )
    parser.add_argument(
        "--settings",
        nargs="+",
        choices=SETTINGS,
        default=list(SETTINGS),
        metavar="SETTING",
        help="by default all; a wrong name lists them",
    )
    return parser.parse_args(given)


def require_same_budget(kept: Path, seconds: float) -> None:
    """Refuses a folder whose runs were longer or shorter."""
    if not kept.exists():
        write_json(kept, seconds)
    elif read_json(kept) != seconds:
        raise UsageError(
            f"{kept.parent} was begun with --seconds {read_json(kept):g}, not {seconds:g}: give "
            "the same, or name another --out."
        )


def main(given: Sequence[str] | None = None) -> int:
    options, console = arguments(given), Console()
    try:
        with output_folder(options.out) as folder:
            require_same_budget(folder / "seconds.json", options.seconds)
            for name in options.data:
                data(name, options.data_dir)
    except (DataError, MissingExtra, UsageError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 2

    jobs = list(jobs_of(options, folder))
    missing = [job for job in jobs if not job.file.exists()]
    console.print(f"{len(missing)} of {len(jobs)} runs are to be done.")
    code = 0
    try:
        run_all(missing, options.jobs, console)
    except KeyboardInterrupt:
        console.print("Stopped; the same command goes on.")
        code = INTERRUPTED
    text = page(gathered(jobs), options.settings, options.data)
    write_text(folder / "defaults.md", text)
    console.print(text, markup=False, soft_wrap=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
