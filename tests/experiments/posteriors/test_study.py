"""The study, end to end and small."""

import json

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("pyro")
pytest.importorskip("sbi")
pytest.importorskip("typer")

from commands import command

from iresnet_flows.experiments.posteriors import report, study
from iresnet_flows.experiments.posteriors.measures import Estimate
from iresnet_flows.experiments.posteriors.runs import Effort, Outcome

COMMAND = ("reproduce", "posteriors", "--targets", "two_moons,gaussian_mixture")
METHODS = ("--models", "normal,i-resnet", "--seed", 0, "--seed", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    draws = np.random.default_rng(0)
    for name in ("two_moons", "gaussian_mixture"):
        where = folder / "sbibm" / name
        where.mkdir(parents=True)
        np.save(where / "observation_1.npy", np.zeros((1, 2), np.float32))
        np.save(where / "reference_1.npy", draws.normal(size=(300, 2)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        quick = Effort(seconds=0.3, simulations=60, epochs=2, draws=100)
        patch.setitem(study.EFFORTS, "quick", quick)
        patch.chdir(out)
        assert not command(patch, *COMMAND, *METHODS, "--data-dir", data, "--out", out)
    return out, json.loads((out / "posteriors.json").read_text())


def test_every_run_is_there_in_order_with_its_measures(finished):
    out, record = finished
    names = [(r["seed"], r["study"], r["target"], r["method"]) for r in record["runs"]]
    planned = [
        ("guides", "two_moons", "normal"),
        ("guides", "two_moons", "i-resnet"),
        ("guides", "gaussian_mixture", "normal"),
        ("guides", "gaussian_mixture", "i-resnet"),
        ("npe", "two_moons", "i-resnet"),
    ]
    assert names == [(seed, *run) for seed in (0, 1) for run in planned]
    for run in record["runs"]:
        assert run["error"] is None
        assert 0.2 <= run["c2st"]["value"] <= 1
        assert 0 < run["efficiency"]["value"] <= 1
    assert len(list((out / "figures").iterdir())) == 5
    assert not list(out.rglob(".*part*"))
    # sbi keeps logs where it works, unless it is told otherwise.
    assert not (out / "sbi-logs").exists()


def test_means_and_errors_are_those_of_the_runs(finished):
    _, record = finished
    row = next(r for r in record["rows"] if r["method"] == "normal")
    values = [
        run["elbo"]["value"]
        for run in record["runs"]
        if (run["target"], run["method"]) == (row["target"], "normal")
    ]
    assert row["elbo"]["value"] == pytest.approx(np.mean(values))
    assert row["elbo"]["standard_error"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(2))


def test_tables_hold_every_method(finished):
    text = (finished[0] / "posteriors.md").read_text()
    assert text.startswith("`iresnet-flows reproduce posteriors")
    for part in ("C2ST", "ELBO", "| i-ResNet |", "| multivariate normal |", "of 2 targets"):
        assert part in text


def test_finished_runs_are_read_and_not_made_again(finished, data, monkeypatch):
    out, _ = finished
    monkeypatch.setitem(study.EFFORTS, "quick", Effort(0.3, 60, 2, 100))
    times = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    arguments = (*COMMAND, *METHODS, "--data-dir", data, "--out", out, "--resume")
    assert not command(monkeypatch, *arguments)
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()} == times
    # Another effort is another study.
    assert command(monkeypatch, *arguments, "--minutes", 0.006) == 2


def test_a_failed_run_is_told_and_not_averaged():
    known = Estimate(0.7, 0.01)
    good = Outcome("guides", "slcp", "normal", 0, None, known, known, known, parameters=35)
    bad = Outcome("guides", "slcp", "normal", 1, error="everything was NaN")
    (row,) = report.summaries([good, bad])
    assert row["c2st"] == {"value": 0.7, "standard_error": 0.01}
    assert row["failed"] == [1]
    assert row["parameters"] == 35
    (lost,) = report.summaries([bad])
    assert lost["c2st"] is lost["steps"] is None


def row(method, c2st, efficiency, target="slcp"):
    return {
        "study": "guides",
        "target": target,
        "method": method,
        "c2st": {"value": c2st, "standard_error": 0.01},
        "efficiency": {"value": efficiency, "standard_error": 0.01},
    }


def test_verdict_counts_what_leads_within_its_error():
    rows = [
        *(row("coupling", 0.70, 0.5), row("iaf", 0.80, 0.2), row("i-resnet", 0.72, 0.6)),
        *(row("coupling", 0.60, 0.5, "two_moons"), row("i-resnet", 0.65, 0.4, "two_moons")),
    ]
    best, efficient = report.verdict(rows)
    assert "on 1 of 2 targets (slcp)" in best
    assert "on 1 of 2 (slcp)" in efficient


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["reproduce", "figures"],
            "unknown study 'figures': did you mean 'fig5'? Known: posteriors",
        ),
        (["reproduce", "posteriors", "--scale", "huge"], "--scale must be one of quick, paper"),
        (["reproduce", "posteriors", "--targets", "sir"], "unknown target 'sir'. Known: two_"),
        (["reproduce", "posteriors", "--models", "glow"], "unknown model 'glow'. Known: normal"),
        (["reproduce", "posteriors", "--observation", 11], "--observation must be 1 to 10"),
        (["reproduce", "posteriors", "--minutes", -1], "--minutes must be a positive number"),
        (["reproduce", "posteriors", "--jobs", 0], "--jobs must be at least 1"),
        (
            ["reproduce", "posteriors", "--targets", "eight_schools", "--models", "nsf"],
            "nothing to do: none of nsf goes with eight_schools",
        ),
        (["reproduce", "posteriors", "--data-dir", "nowhere"], "no observation_1.npy"),
    ],
)
def test_mistakes_end_with_one_line(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_interrupted_studies_say_how_to_go_on(data, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "write_report", interrupt)
    monkeypatch.setitem(study.EFFORTS, "quick", Effort(0.3, 60, 2, 100))
    arguments = ("--models", "normal", "--seed", 0, "--data-dir", data, "--out", tmp_path)
    assert command(monkeypatch, *COMMAND, *arguments) == 130
    assert "--resume" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setitem(study.EFFORTS, "quick", Effort(0.3, 60, 2, 100))
    assert list((tmp_path / "runs").iterdir())
    assert not command(monkeypatch, *COMMAND, *arguments, "--resume")
    assert len(list((tmp_path / "runs").iterdir())) == 2
