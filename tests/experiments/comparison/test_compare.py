"""The comparison, end to end and small."""

import json
import linecache
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("nflows")

import numpy as np
from commands import command

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.budgets import Budget
from iresnet_flows.experiments.comparison import compare as comparison
from iresnet_flows.experiments.comparison import contenders
from iresnet_flows.experiments.comparison.contenders import (
    CONTENDERS,
    chosen,
    couplings,
    registry,
)
from iresnet_flows.experiments.comparison.results import PROPERTIES, Plan, Result
from iresnet_flows.experiments.comparison.training import Training
from iresnet_flows.experiments.storage import alone_in

MODELS = "nice,realnvp,glow,ffjord,i-resnet"
ARGUMENTS = ("compare", "two-moons", "--models", MODELS, "--steps", 30)
ROW = {
    *("model", "free_form", "analytic_forward", "analytic_inverse", "non_volume_preserving"),
    *("exact_likelihood", "unbiased_log_det", "evidence", "nats", "nats_standard_error"),
    *("bits_per_dim", "inverse_error", "parameters", "train_seconds", "step_ms", "log_prob_ms"),
    *("sample_ms", "peak_mb"),
}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """One small comparison of all contenders, shared by the tests that read it."""
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        code = command(patch, *ARGUMENTS, "--jobs", 1, "--out", out)
    assert not code
    return out, json.loads((out / "table1.json").read_text())


def test_record_has_the_promised_entries(record):
    _, table = record
    assert {"data", "seeds", "command", "versions", "rows"} <= set(table)
    assert [row["model"] for row in table["rows"]] == MODELS.split(",")
    for row in table["rows"]:
        assert set(row) >= ROW
        assert math.isfinite(row["nats"])
        assert row["nats_standard_error"] > 0
        assert math.isclose(row["bits_per_dim"], row["nats"] / (2 * math.log(2)))


def test_parameters_are_comparable(record):
    counts = [row["parameters"] for row in record[1]["rows"]]
    assert max(counts) < 1.1 * min(counts)


def test_measured_properties_are_those_of_the_families(record):
    found = {row["model"]: [row[name] for name in PROPERTIES] for row in record[1]["rows"]}
    assert found == {
        "nice": [False, True, True, False, True, None],
        "realnvp": [False, True, True, True, True, None],
        "glow": [False, True, True, True, True, None],
        "ffjord": [True, False, False, True, False, True],
        "i-resnet": [True, True, False, True, True, True],
    }


def test_inverse_error_is_small(record):
    for row in record[1]["rows"]:
        assert row["inverse_error"] < (1e-2 if row["model"] == "ffjord" else 1e-4)


def test_page_tables_and_figures_are_there_and_whole(record):
    out, table = record
    for name in ("report.html", "results.csv", "results.parquet"):
        assert (out / name).stat().st_size
    for row in table["rows"]:
        assert CONTENDERS[row["model"]].title in (out / "table1.md").read_text()
    names = {path.name for path in (out / "figures").iterdir()}
    assert names == {
        f"{n}.png" for n in ("curves", "samples", "densities", "inverse_error", "cost")
    }
    assert not list(out.rglob(".*part*"))


def test_probes_tell_the_families_apart(record):
    rows = {row["model"]: row for row in record[1]["rows"]}
    for name, row in rows.items():
        assert row["log_prob_noise"] == 0
        assert row["weighted_gradient_error"] < (0.1 if name == "ffjord" else 1e-3)
        assert row["inverse_gradient_error"] < (1e-2 if name == "ffjord" else 1e-8)
        assert (row["lipschitz_bound"] is None) == (name != "i-resnet")
    assert 0 < rows["i-resnet"]["lipschitz_bound"] <= 0.97
    for name in ("nice", "realnvp", "glow"):
        assert 0.5 < rows[name]["log_prob_evaluations"] < 1.5
        assert math.isclose(
            rows[name]["log_prob_evaluations"], rows[name]["sample_evaluations"], rel_tol=0.05
        )
    assert rows["ffjord"]["log_prob_evaluations"] > 10
    assert rows["i-resnet"]["sample_evaluations"] > rows["i-resnet"]["log_prob_evaluations"] > 1


def test_finished_runs_are_read_and_not_trained_again(record, monkeypatch):
    out, before = record
    monkeypatch.setattr("iresnet_flows.experiments.comparison.runs.fit", None)
    assert not command(monkeypatch, *ARGUMENTS, "--out", out)
    after = json.loads((out / "table1.json").read_text())
    assert [row["nats"] for row in after["rows"]] == [row["nats"] for row in before["rows"]]


def test_other_settings_are_other_runs(record, monkeypatch):
    out, _ = record
    plans = [Plan("two-moons", "x", "nice", 0, steps=steps) for steps in (30, 31)]
    assert plans[0].slug != plans[1].slug
    assert len(list((out / "runs").iterdir())) == len(MODELS.split(","))


def test_processes_give_what_one_gives(record, tmp_path, monkeypatch):
    _, before = record
    arguments = ("compare", "two-moons", "--models", "nice,glow", "--steps", 30)
    assert not command(monkeypatch, *arguments, "--jobs", 2, "--out", tmp_path)
    nats = {row["model"]: row["nats"] for row in before["rows"]}
    after = json.loads((tmp_path / "table1.json").read_text())
    assert [row["nats"] for row in after["rows"]] == [nats["nice"], nats["glow"]]


def test_interrupted_training_goes_on_from_its_checkpoint(tmp_path, monkeypatch, capsys):
    step = Training.training_step

    def interrupted(self, batch, index):
        if self.global_step == 40:
            raise KeyboardInterrupt
        return step(self, batch, index)

    arguments = ("compare", "circles", "--models", "nice", "--steps", 60, "--out", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "training_step", interrupted)
        assert command(patch, *arguments) == 130
    assert "the same command goes on" in " ".join(capsys.readouterr().out.split())

    seen = []

    def counted(self, batch, index):
        seen.append(self.global_step)
        return step(self, batch, index)

    monkeypatch.setattr(Training, "training_step", counted)
    assert not command(monkeypatch, *arguments)
    assert 38 <= seen[0] <= 40
    assert seen[-1] == 59


KILLED = """
import sys
from iresnet_flows.cli import main
if __name__ == "__main__":
    sys.argv = ["iresnet-flows", "compare", "circles", "--models", "nice,realnvp", "--steps",
                "20000", "--jobs", "2", "--out", {out!r}]
    main()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED.format(out=str(tmp_path / "out")))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.DEVNULL)
    try:
        waited(lambda: len(list((tmp_path / "out").glob("runs/*/last.ckpt"))) == 2)
        workers = descendants(parent.pid)
        assert len(workers) >= 2
    finally:
        parent.kill()
        parent.wait()
    waited(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def descendants(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def waited(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_fresh_forgets_what_is_there(tmp_path, monkeypatch):
    arguments = ("compare", "circles", "--models", "nice", "--steps", 3, "--out", tmp_path)
    assert not command(monkeypatch, *arguments)
    (before,) = (tmp_path / "runs").glob("*/result.json")
    changed = before.stat().st_mtime_ns
    assert not command(monkeypatch, *arguments, "--fresh")
    assert before.stat().st_mtime_ns > changed


def test_first_rows_are_what_is_trained_on(tmp_path, monkeypatch):
    arguments = ("compare", "circles", "--models", "nice", "--steps", 3, "--out", tmp_path)
    assert not command(monkeypatch, *arguments, "--rows", 500)
    (kept,) = (tmp_path / "runs").iterdir()
    assert Result.load(kept).data.train == 500


def test_contender_whose_loss_is_nan_is_reported_and_the_rest_goes_on(
    tmp_path, monkeypatch, capsys
):
    def broken(features, width):
        flow = couplings.nice(features, width)
        with torch.no_grad():
            next(flow.parameters()).fill_(math.nan)
        return flow

    monkeypatch.setitem(
        CONTENDERS,
        "nice",
        contenders.Contender("nice", "NICE", "broken", broken, least_features=2),
    )
    arguments = ("compare", "rings", "--models", "nice,realnvp", "--steps", 5, "--out", tmp_path)
    assert not command(monkeypatch, *arguments, "--jobs", 1)
    nice, realnvp = json.loads((tmp_path / "table1.json").read_text())["rows"]
    assert nice["nats"] is None
    assert "the loss became nan at step 0" in nice["failed"][0]
    assert math.isfinite(realnvp["nats"])
    assert "nan" in (tmp_path / "table1.md").read_text()


MINE = """
from pathlib import Path

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms import LULinear


class OneWay(LULinear):
    def inverse(self, inputs, context=None):
        raise LookupError("there is no way back")


class Moody(LULinear):
    def forward(self, inputs, context=None):
        if self.training and Path("BUG").exists():
            raise LookupError("a bug of mine")
        return super().forward(inputs, context)


class Lossy(LULinear):
    def inverse(self, inputs, context=None):
        x, log_det = super().inverse(inputs, context)
        return x.where(x < 0, torch.tensor(float("nan"))), log_det


def lossy(features):
    return Flow(Lossy(features), StandardNormal([features]))


def one_way(features):
    return Flow(OneWay(features), StandardNormal([features]))


def moody(features):
    return Flow(Moody(features), StandardNormal([features]))
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of contenders in the working directory, which `sys.modules` forgets again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_contenders", raising=False)
    (tmp_path / "my_contenders.py").write_text(MINE)
    yield tmp_path
    sys.modules.pop("my_contenders", None)


def test_a_density_that_cannot_be_sampled_keeps_its_score(mine, monkeypatch):
    arguments = ("compare", "rings", "--models", "nice", "--contender", "my_contenders:one_way")
    assert not command(monkeypatch, *arguments, "--steps", 5, "--jobs", 1, "--out", "out")
    rows = json.loads((mine / "out" / "table1.json").read_text())["rows"]
    (row,) = [row for row in rows if row["model"] == "my_contenders:one_way"]
    assert math.isfinite(row["nats"])
    assert not row["failed"]
    assert row["inverse_error"] is None
    results = [Result.load(path) for path in (mine / "out" / "runs").iterdir()]
    (found,) = [r for r in results if r.plan.model == "my_contenders:one_way"]
    assert "its inverse raised an exception on test rows" in found.remark
    assert "the drawing of it failed: LookupError: there is no way back" in found.remark


def test_an_inverse_that_is_no_number_is_told(mine, monkeypatch):
    arguments = ("compare", "rings", "--models", "nice", "--contender", "my_contenders:lossy")
    assert not command(monkeypatch, *arguments, "--steps", 5, "--jobs", 1, "--out", "out")
    results = [Result.load(path) for path in (mine / "out" / "runs").iterdir()]
    (found,) = [r for r in results if r.plan.model == "my_contenders:lossy"]
    assert re.search(r"its inverse is no number on \d+ of \d+ test rows", found.remark)


def test_all_models_are_those_whose_packages_are_there(tmp_path, monkeypatch, capsys):
    known = {
        "nice": CONTENDERS["nice"],
        "nsf": replace(CONTENDERS["nsf"], requires="no_such_thing"),
    }
    for module in (contenders, registry):
        monkeypatch.setattr(module, "CONTENDERS", known)
    arguments = ("compare", "rings", "--models", "all", "--steps", 5, "--jobs", 1)
    assert not command(monkeypatch, *arguments, "--out", tmp_path)
    rows = json.loads((tmp_path / "table1.json").read_text())["rows"]
    assert [row["model"] for row in rows] == ["nice"]
    said = " ".join(capsys.readouterr().out.split())
    assert "Neural spline flow is left out: pip install no_such_thing brings it." in said


def test_a_run_that_failed_by_a_bug_is_tried_again_and_code_that_changed_is_another_run(
    mine, monkeypatch
):
    arguments = ("compare", "rings", "--models", "nice", "--contender", "my_contenders:moody")
    arguments = (*arguments, "--steps", 5, "--jobs", 1, "--out", "out")

    def moody():
        assert not command(monkeypatch, *arguments)
        rows = json.loads((mine / "out" / "table1.json").read_text())["rows"]
        return next(row for row in rows if row["model"] == "my_contenders:moody")

    (mine / "BUG").touch()
    assert "a bug of mine" in moody()["failed"][0]
    (mine / "BUG").unlink()
    assert not moody()["failed"]
    assert len(list((mine / "out" / "runs").iterdir())) == 2
    (mine / "my_contenders.py").write_text(MINE + "# changed\n")
    linecache.checkcache()
    assert not moody()["failed"]
    assert len(list((mine / "out" / "runs").iterdir())) == 3


def test_widths_that_were_timed_are_kept_with_the_runs(tmp_path, monkeypatch):
    nice = CONTENDERS["nice"]
    asked = []

    def timed(who, features, match):
        asked.append(who.name)
        return 7 + len(asked), "a remark"

    monkeypatch.setattr(comparison, "sized", timed)
    first = comparison.widths("time", 2, [nice], tmp_path)
    assert first == comparison.widths("time", 2, [nice], tmp_path) == {"nice": (8, "a remark")}
    assert asked == ["nice"]
    assert comparison.widths("time", 3, [nice], tmp_path) == {"nice": (9, "a remark")}


def test_several_seeds_give_mean_and_standard_error(tmp_path, monkeypatch):
    arguments = ("compare", "pinwheel", "--models", "nice", "--steps", 5, "--out", tmp_path)
    assert not command(monkeypatch, *arguments, "--seed", 0, "--seed", 1)
    (row,) = json.loads((tmp_path / "table1.json").read_text())["rows"]
    first, second = row["nats_by_seed"].values()
    assert math.isclose(row["nats"], (first + second) / 2)
    runs = [Result.load(path).arrays["rows"] for path in (tmp_path / "runs").iterdir()]
    of_rows = np.stack(runs).mean(0).var(ddof=1) / len(runs[0])
    error = math.sqrt(((first - second) / 2) ** 2 + of_rows)
    assert math.isclose(row["nats_standard_error"], error)


BAD = {
    "unknown data": (["two-moon"], "did you mean 'two-moons'"),
    "unknown model": (["digits", "--models", "glo"], "did you mean 'glow'"),
    "a comma too many": (["digits", "--models", "glow,"], "an empty name in 'glow,'"),
    "all and one": (["digits", "--models", "all,glow"], "leave out the rest of 'all,glow'"),
    "missing file": (["nowhere.csv"], "no such file"),
    "both budgets": (["--steps", 3, "--minutes", 1], "give one of them"),
    "no steps": (["--steps", 0], "at least 1"),
    "negative minutes": (["--minutes", -1], "positive"),
    "steps in words": (["--steps", "many"], "many"),
    "unknown option": (["--step", 3], "--step"),
    "unknown device": (["--device", "tpu"], "cpu"),
    "unknown match": (["--match", "depth"], "parameters, time, none"),
    "no jobs": (["--jobs", 0], "at least 1"),
    "too few rows": (["--rows", 9], "at least 10"),
}


@pytest.mark.parametrize(("arguments", "advice"), BAD.values(), ids=BAD)
def test_bad_input_ends_with_one_line_and_code_2(arguments, advice, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "compare", *arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert advice in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "table1.json").exists()


def test_a_comparison_without_a_finished_run_is_told_from_no_comparison(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "begun" / "runs" / "one").mkdir(parents=True)
    for name, said in (("begun", "no run that has come to its end"), ("none", "no results: name")):
        assert command(monkeypatch, "report", tmp_path / name, "--out", tmp_path / "out") == 2
        assert said in capsys.readouterr().err


def test_output_folder_that_is_a_file_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "taken").write_text("")
    assert command(monkeypatch, "compare", "--out", tmp_path / "taken") == 2
    assert "is a file" in capsys.readouterr().err


def test_a_second_command_in_a_folder_is_refused_in_a_line(tmp_path, monkeypatch, capsys):
    arguments = ("compare", "circles", "--models", "nice", "--steps", 3, "--jobs", 2)
    with alone_in(tmp_path):
        assert command(monkeypatch, *arguments, "--out", tmp_path) == 2
    said = capsys.readouterr().err
    assert f"process {os.getpid()} is at work in {tmp_path}" in said
    assert len(said.strip().splitlines()) == 1
    assert not command(monkeypatch, *arguments, "--seed", 0, "--seed", 1, "--out", tmp_path)
    assert not (tmp_path / ".in-use").exists()


def test_one_column_leaves_out_what_cannot_be_built(tmp_path, monkeypatch, capsys):
    (tmp_path / "one.csv").write_text("a\n" + "\n".join(str(0.1 * i) for i in range(200)))
    code = command(monkeypatch, "compare", tmp_path / "one.csv", "--out", tmp_path / "out")
    assert code == 2
    assert re.search("few columns, 1, for .*NICE.*--models, as resnet", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["result.json", "arrays.npz"])
@pytest.mark.parametrize("junk", [False, True], ids=["cut off", "junk"])
def test_damaged_results_are_named_in_one_line(name, junk, tmp_path, monkeypatch, capsys):
    arguments = ("compare", "circles", "--models", "nice", "--steps", 3, "--out", tmp_path)
    assert not command(monkeypatch, *arguments)
    (path,) = tmp_path.glob(f"runs/*/{name}")
    whole = path.read_bytes()
    path.write_bytes(b"garbage" if junk else whole[: len(whole) // 2])
    for again in (arguments, ("report", tmp_path)):
        capsys.readouterr()
        assert command(monkeypatch, *again) == 2
        said = capsys.readouterr().err
        assert f"{path} is damaged" in said
        assert said.count("\n") == 1

    path.unlink()
    assert command(monkeypatch, "report", tmp_path) == 2
    assert "holds no run that has come to its end" in capsys.readouterr().err
    assert not command(monkeypatch, *arguments)
    assert path.exists()


def test_a_full_disk_ends_the_comparison_with_one_line(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise RuntimeError("No space left")

    arguments = ("compare", "circles", "--models", "nice", "--steps", 3, "--out", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        assert command(patch, *arguments) == 2
    said = capsys.readouterr().err
    assert "weights.pt cannot be written: No space left" in said or "last.ckpt" in said
    assert not list(tmp_path.glob("runs/*/result.json"))
    assert not command(monkeypatch, *arguments)


def test_studies_of_one_folder_leave_each_other_alone(tmp_path, monkeypatch):
    arguments = ("compare", "circles", "--models", "nice", "--steps", 3, "--out", tmp_path)
    assert not command(monkeypatch, *arguments, "--seed", 1)
    (kept,) = (tmp_path / "runs").iterdir()
    assert not command(monkeypatch, *arguments, "--fresh")
    assert (kept / "result.json").exists()


def test_unknown_contender_is_named_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'i-resnet'"):
        chosen(["i-resnt"])


def test_runs_leave_the_random_state_alone(tmp_path, monkeypatch):
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    arguments = ("compare", "circles", "--models", "nice", "--steps", 3, "--jobs", 1)
    assert not command(monkeypatch, *arguments, "--out", tmp_path)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()  # noqa: NPY002


def test_budget_counts_steps_or_minutes():
    assert Budget(steps=10).spent(5, 1e9) == 0.5
    assert Budget(minutes=2).spent(10**9, 60) == 0.5
    assert Budget(minutes=2).spent(0, 1e9) == 1


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({}, "one of them must be given, got steps None and minutes None"),
        ({"steps": 5, "minutes": 1.0}, "got steps 5 and minutes 1.0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"minutes": 0.0}, "minutes must be a positive number, got 0.0"),
    ],
)
def test_a_budget_has_one_limit(limits, told):
    with pytest.raises(ValueError, match=told):
        Budget(**limits)


def test_a_contender_that_fails_is_refused_before_others_are_trained(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "broken_of_mine.py").write_text(
        "def flow(features):\n    raise KeyError('gone')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = ("compare", "circles", "--models", "nice", "--contender", "broken_of_mine:flow")
    assert command(monkeypatch, *arguments, "--steps", 3, "--out", tmp_path / "out") == 2
    assert "fails: KeyError" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("runs/*"))
