"""The benchmark, end to end and tiny, and the arithmetic of its table."""

import gc
import json
import math
from dataclasses import replace

import pytest
import torch

np = pytest.importorskip("numpy")
pytest.importorskip("matplotlib")
pytest.importorskip("nflows")
pytest.importorskip("normflows")
pytest.importorskip("sklearn")
pytest.importorskip("typer")

from cases import hostile
from commands import command

from iresnet_flows import Exact, RussianRoulette
from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.bench import growth, peers, settings
from iresnet_flows.experiments.bench.bounds import worst_excess
from iresnet_flows.experiments.bench.clocks import Clock
from iresnet_flows.experiments.bench.contestants import OURS, Net, ours
from iresnet_flows.experiments.bench.flows import build, mixture
from iresnet_flows.experiments.bench.memory import kept_bytes
from iresnet_flows.experiments.bench.noise import gradient_noise
from iresnet_flows.experiments.bench.peers import PEERS, chosen
from iresnet_flows.experiments.bench.rows import AtMost, Row, ShareOf, TimesBetter
from iresnet_flows.experiments.bench.settings import Case, Settings
from iresnet_flows.experiments.bench.trained import jacobians, root
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.experiments.widths import trainable

ONCE = Clock(rounds=1, seconds=0)
TINY = Settings(
    clock=ONCE,
    cases=(Case(Net(2, (8, 8)), 16, TimesBetter(2.5, 4.0)),),
    warm_steps=1,
    train_steps=2,
    bounds=(0.9,),
    repeats=2,
    hostile_steps=3,
    sweeps={"features": (2, 3), "batch": (4,)},
    growth=ONCE,
    exact_features=16,
    trained=Net(4, (8, 8)),
)
ROW = {
    *("measure", "case", "against", "contestant", "theirs", "ours", "must", "aim", "target"),
    *("ratio", "verdict", "rounds", "note", "spread"),
}
INSTALLED = [peer for peer in PEERS.values() if peer.installed]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A tiny benchmark against normflows, shared by the tests that read it."""
    out = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "QUICK", TINY)
        code = command(patch, "bench", "--against", "normflows", "--quick", "--out", out)
    assert not code
    return out, json.loads((out / "bench.json").read_text())


def test_record_has_the_promised_entries(report):
    _, record = report
    assert record["finished"]
    assert record["command"].startswith("iresnet-flows bench")
    assert record["settings"]["rounds"] == 1
    assert {"torch", "normflows", "python", "threads"} <= set(record["versions"])
    assert {p["contestant"] for p in record["parameters"]} >= {"csin", "normflows"}
    assert {row["measure"].split(" (")[0] for row in record["rows"]} >= {
        *("training step", "log_prob", "sampling", "inverse error, float32"),
        *("log-det RMS error at equal time", "log-det variance x time"),
        "variance of a step's gradient",
        *("kept for the backward pass", "training step over a bare one", "exact log-det"),
        "product of layer norms over the stated bound",
    }
    for row in record["rows"]:
        assert set(row) == ROW
        assert row["theirs"] >= 0
        assert row["ours"] >= 0


def test_ratios_are_those_of_the_numbers_beside_them(report):
    for row in report[1]["rows"]:
        if row["target"] is None or row["target"].startswith("≥"):
            if row["ours"]:
                assert math.isclose(row["ratio"], row["theirs"] / row["ours"])
        elif " over a bare " in row["measure"] or row["measure"].startswith("exact"):
            assert math.isclose(row["ratio"], row["ours"] / row["theirs"])
        else:
            assert row["ratio"] == row["ours"]


def test_growth_has_a_point_for_each_contestant_size_and_measure(report):
    out, record = report
    points = {(p["sweep"], p["size"], p["measure"], p["contestant"]) for p in record["growth"]}
    assert len(points) == len(record["growth"]) == 3 * 3 * 2
    assert all(p["milliseconds"] > 0 for p in record["growth"])
    assert {p.name for p in (out / "figures").iterdir()} == {"features.svg", "batch.svg"}


def test_page_says_how_it_was_made(report):
    out, record = report
    page = (out / "bench.md").read_text()
    assert record["command"] in page
    assert "threads 1" in page
    assert "update_lipschitz" in page
    assert "stopped" not in page
    assert page.count("\n| ") >= len(record["rows"])
    assert not list(out.rglob(".*part*"))


def test_stopped_run_leaves_what_it_has_measured(tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(settings, "QUICK", TINY)
    monkeypatch.setattr(growth, "points", stop)
    code = command(monkeypatch, "bench", "--against", "normflows", "--quick", "--out", tmp_path)
    assert code == 130
    assert "What was measured" in capsys.readouterr().out
    record = json.loads((tmp_path / "bench.json").read_text())
    assert record["rows"]
    assert not record["finished"]
    assert "stopped before its end" in (tmp_path / "bench.md").read_text()


BAD = {
    "unknown library": (["--against", "normflow"], "did you mean 'normflows'"),
    "no threads": (["--threads", 0], "must be 1 to"),
    "unknown option": (["--fast"], "--fast"),
    "no library": (["--against", ""], "an empty name in ''"),
}


@pytest.mark.parametrize(("arguments", "advice"), BAD.values(), ids=BAD)
def test_bad_input_ends_with_one_line_and_code_2(arguments, advice, tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "bench", *arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert advice in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_library_that_is_not_installed_is_refused_by_name_and_else_left_out(monkeypatch):
    monkeypatch.setattr(
        peers, "find_spec", lambda name: None if name == "FrEIA" else __import__(name)
    )
    monkeypatch.setitem(peers.PEERS, "flowcon", replace(PEERS["flowcon"], module="FrEIA"))
    monkeypatch.setitem(peers.PEERS, "torchflows", replace(PEERS["torchflows"], module="FrEIA"))
    with pytest.raises(UsageError, match="FrEIA is not installed: pip install FrEIA"):
        chosen(["freia"])
    found, absent = chosen(None)
    assert [peer.name for peer in found] == ["normflows"]
    assert [peer.name for peer in absent] == ["torchflows", "freia", "flowcon"]


def test_library_that_changed_is_refused_with_one_line(monkeypatch, capsys, tmp_path):
    def changed(net):
        raise AttributeError("no Residual any more")

    monkeypatch.setitem(peers.PEERS, "normflows", replace(PEERS["normflows"], make=changed))
    assert command(monkeypatch, "bench", "--against", "normflows", "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "no Residual any more" in said
    assert "leave it out" in said
    assert not (tmp_path / "out").exists()


TARGETS = {
    "better and aimed": (TimesBetter(2.0, 4.0), 8.0, 2.0, 4.0, "met aim"),
    "better and enough": (TimesBetter(2.0, 4.0), 6.0, 2.0, 3.0, "met must"),
    "better and missed": (TimesBetter(2.0, 4.0), 3.0, 2.0, 1.5, "missed"),
    "share and aimed": (ShareOf(2.5, 1.8), 2.0, 3.6, 1.8, "met aim"),
    "share and missed": (ShareOf(2.5, 1.8), 2.0, 6.0, 3.0, "missed"),
    "error and enough": (AtMost(1e-5, 1e-6), 1.0, 5e-6, 5e-6, "met must"),
    "not a number": (AtMost(1.0, 1.0), 1.0, math.nan, math.nan, "missed"),
    "their failure": (TimesBetter(2.0, 4.0), None, 2.0, None, "no result"),
    "our failure": (TimesBetter(2.0, 4.0), 2.0, None, None, "no result"),
    "no target": (None, 3.0, 2.0, 1.5, "-"),
}


@pytest.mark.parametrize(
    ("target", "theirs", "mine", "figure", "verdict"), TARGETS.values(), ids=TARGETS
)
def test_verdicts_follow_from_two_numbers(target, theirs, mine, figure, verdict):
    row = Row("m", "c", "them", "us", theirs, mine, target)
    assert row.verdict == verdict
    assert row.figure == figure or math.isnan(row.figure)


def test_clock_alternates_and_names_who_fails():
    seen = []

    def broken():
        raise RuntimeError("does\nnot converge")

    runs = {"a": lambda: seen.append("a"), "b": lambda: seen.append("b"), "c": broken}
    times = Clock(rounds=2, seconds=1).alternate(runs)
    assert seen == [*"ab", *"ab", *"ba"]
    assert times.failed == {"c": "does not converge"}
    assert len(times.rounds["a"]) == 2
    assert times.median("c") is None
    assert times.spread("a", "c") is None
    assert times.spread("a", "a") == (1.0, 1.0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("peer", INSTALLED, ids=lambda peer: peer.name)
def test_each_library_is_called_as_its_block_promises(peer):
    flow = build(peer, Net(3, (8, 8), blocks=1))
    (block,) = flow.each()
    x = mixture(3, 4)
    with seeded():
        (-flow.log_prob(x).mean()).backward()
        flow.after_step()
        block.eval()
        with torch.no_grad():
            y, log_det = block(x.clone())
            assert block.invert(y.clone()).shape == block.inverse(y.clone())[0].shape == (4, 3)
            assert block.residual(x).shape == (4, 3)
    assert log_det.reshape(-1).shape == (4,)
    assert not x.requires_grad
    assert len(block.weights()) == 3
    assert trainable(flow) > 0
    if peer.name != "torchflows":  # whose network is another one in every call
        assert (x + block.residual(x) - y).abs().max() < 1e-6


def test_reference_inverse_and_jacobians_are_those_of_the_weights_in_use():
    (block,) = build(OURS, Net(3, (8, 8), blocks=1)).eval().each()
    x = mixture(3, 4)
    with torch.no_grad():
        y, log_det = block(x)
    assert (root(block, y) - x).abs().max() < 1e-6
    truth = torch.linalg.slogdet(torch.eye(3) + jacobians(block, x)).logabsdet
    assert (truth - log_det).abs().max() < 1e-6


def test_bound_of_ours_holds_and_that_of_an_updater_that_nobody_calls_does_not():
    assert worst_excess(OURS, steps=4, called=False) <= 1
    assert worst_excess(PEERS["normflows"], steps=4, called=False) > 2


def test_kept_bytes_count_closures_and_shrink_with_low_memory():
    net = Net(16, (32, 32), blocks=1)
    x = mixture(16, 64)
    kept = {}
    for memory in ("full", "low"):
        (block,) = build(ours(memory, memory=memory), net).train().each()
        kept[memory] = kept_bytes(block, x.clone().requires_grad_())
    three_vectors = 3 * x.nbytes
    assert three_vectors <= kept["low"] < three_vectors + 4096
    assert kept["full"] > kept["low"]
    gc.collect()


def test_every_line_of_the_table_has_as_many_cells_as_the_head(report):
    lines = [line for line in (report[0] / "bench.md").read_text().splitlines() if "|" in line]
    table = lines[: 2 + len(report[1]["rows"])]
    assert any("J" in line for line in table)
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1


def test_the_noise_of_a_gradient_is_that_of_its_estimator():
    net, x = Net(12, (16, 16)), mixture(12, 16)
    exact, one, four = (
        build(ours("ours", log_det=log_det), net)
        for log_det in (Exact(), RussianRoulette(terms=8), RussianRoulette(terms=8, probes=4))
    )
    for flow in (exact, one, four):
        with seeded():
            hostile(flow, 0.3)
    noise = [gradient_noise(flow, x, 400) for flow in (exact, one, four)]
    assert noise[0] == pytest.approx(0.0, abs=1e-9)
    assert noise[1] / noise[2] == pytest.approx(4.0, rel=0.3)
