"""Figure 4: biases, bounds and deviations against independent truths, and the command, small."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("typer")
pytest.importorskip("sklearn")

from commands import command

from iresnet_flows import LipschitzMLP, PowerSeries, RussianRoulette
from iresnet_flows.experiments.paper import estimates, fig4, log_dets, trainings
from iresnet_flows.experiments.paper.estimates import Effort

SIGMAS = 4.5


def matrices(count=3, d=4, norm=0.8):
    """Matrices of that norm, not symmetric."""
    generator = torch.Generator().manual_seed(0)
    j = torch.randn(count, d, d, generator=generator, dtype=torch.float64)
    return norm * j / torch.linalg.matrix_norm(j, 2)[:, None, None]


def test_exact_bias_is_the_cut_series_less_the_trace_of_the_matrix_logarithm():
    j, n = matrices(), 12
    logarithm = torch.linalg.eigvals(j).log1p().sum(1).real
    powers = torch.stack([torch.linalg.matrix_power(j, k) for k in range(1, n + 1)])
    signs = j.new_tensor([-((-1) ** k) / k for k in range(1, n + 1)])
    series = (signs[:, None] * powers.diagonal(dim1=2, dim2=3).sum(2)).cumsum(0)
    torch.testing.assert_close(log_dets.left_out(j, n), series - logarithm, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        log_dets.partial_sums(j, n).diagonal(dim1=2, dim2=3).sum(2), series, rtol=0, atol=1e-13
    )


def test_theorem_3_is_the_closed_form_and_is_met_by_minus_l():
    d, bound, n = 5, 0.6, 15
    closed = [
        -d * (math.log1p(-bound) + sum(bound**k / k for k in range(1, m + 1)))
        for m in range(1, n + 1)
    ]
    found = log_dets.loss_bound(d, bound, n)
    torch.testing.assert_close(
        found, torch.tensor(closed, dtype=torch.float64), rtol=1e-9, atol=1e-14
    )
    worst = -bound * torch.eye(d, dtype=torch.float64).unsqueeze(0)
    torch.testing.assert_close(log_dets.left_out(worst, n)[:, 0], found)


def test_theorem_3_holds_and_loses_no_digits_where_nothing_is_left():
    j = matrices(20)
    ratio = log_dets.left_out(j, 60).abs() / log_dets.loss_bound(4, 0.8, 60)[:, None]
    assert 1e-6 < ratio.max() < 1
    tiny = log_dets.loss_bound(1, 0.1, 20)[-1]
    assert float(tiny) == pytest.approx(0.1**21 / 21 + 0.1**22 / 22, rel=0.02)


def test_deviations_are_those_of_all_rademacher_probes_and_of_many_gaussian_ones():
    a = matrices(1, 3)[0]
    probes = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    values = torch.einsum("ri,ij,rj->r", probes, a, probes)
    exact = log_dets.deviations(a, gaussian=False)
    torch.testing.assert_close(exact, values.std(unbiased=False))

    generator = torch.Generator().manual_seed(1)
    v = torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    drawn = torch.einsum("ri,ij,rj->r", v, a, v).std()
    torch.testing.assert_close(drawn, log_dets.deviations(a, gaussian=True), rtol=0.02, atol=0)


@pytest.fixture(scope="module")
def block():
    """A branch with points, Jacobians and log-determinants."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        g = LipschitzMLP(6, (12, 12), 0.8).double()
        x = torch.randn(4, 6, dtype=torch.float64)
    with torch.no_grad():
        residual = g.at()
        jacobians = torch.func.vmap(torch.func.jacrev(lambda x: g(x[None])[0]))(x)
    truth = torch.linalg.slogdet(torch.eye(6) + jacobians)[1]
    return residual, x, jacobians.detach(), truth.detach()


@torch.no_grad()
def estimators(block, generator):
    g, x, jacobians, _ = block
    series = PowerSeries(terms=40, probes=2000, generator=generator)
    roulette = RussianRoulette(probes=2000, generator=generator)
    return {
        "gaussian": log_dets.gaussian_series(jacobians, 40, 4000, generator)[-1],
        "residual flows": log_dets.gaussian_roulette(jacobians, 2, 4000, generator),
        "series": log_dets.ours(series, g, x, 2),
        "roulette": log_dets.ours(roulette, g, x, 2),
    }


def test_estimators_have_the_log_determinant_as_their_mean(block):
    for draws in estimators(block, torch.Generator().manual_seed(0)).values():
        assert draws.values.shape == (4000, 4)
        bias, error = draws.bias(block[-1])
        assert abs(bias) < SIGMAS * error < 0.2
        assert 2 < draws.terms <= 40


def test_short_series_are_as_far_off_as_the_exact_bias_says(block):
    generator = torch.Generator().manual_seed(0)
    found = log_dets.gaussian_series(block[2], 3, 20_000, generator)
    truth = log_dets.left_out(block[2], 3).mean(1).tolist()
    far = log_dets.distances([log_dets.pooled([each], [block[-1]]) for each in found], truth)
    assert len(far) == 3
    assert max(map(abs, far)) < SIGMAS


@torch.no_grad()
def test_certified_tail_is_kept(block):
    tail = log_dets.certified_tail(*block[:2], tolerance=1e-3, probes=50, seed=0)
    assert 0 < tail.bias <= tail.stated <= 1e-3
    assert 0 < tail.tightest <= 1


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command at a small size, in this process."""
    monkeypatch.setitem(estimates.EFFORTS, "quick", Effort(steps=3, points=3, repeats=1))
    monkeypatch.setitem(estimates.MODELS, "two-moons", (8, 8))
    monkeypatch.setattr(estimates, "PROBES", 20)
    monkeypatch.setattr(estimates, "BLOCKS", 2)
    monkeypatch.setattr(trainings, "each_in_parallel", lambda items, *rest: map(rest[-1], items))
    arguments = ("reproduce", "fig4", "--out", tmp_path, "--models", "two-moons")
    return lambda *more: command(monkeypatch, *arguments, *more)


def test_command_measures_draws_and_goes_on_with_what_is_there(run, tmp_path, monkeypatch, capsys):
    assert not run()
    assert "Theorem 3's bound is kept everywhere" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "fig4.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "fig4.json").read_text())["rows"]
    assert [row["flow"]["coefficient"] for row in rows] == [0.5, 0.7, 0.9]
    for row in rows:
        assert row["residue"] < 1e-12
        assert 0 < row["tightest"] <= 1
        assert all(b <= t for b, t in zip(row["left_out"], row["bound"], strict=True))
        assert max(row["lipschitz"]) <= row["flow"]["coefficient"] ** 3 + 1e-9
        assert row["exact"]["series"][0] == 0
        assert row["drawn"]["series"][0][3] < 1e-12
        assert row["drawn"]["gaussian"][5][3] == pytest.approx(row["exact"]["gaussian"][5], rel=1)

    def refused(*_):
        raise AssertionError

    monkeypatch.setattr(trainings, "train", refused)
    assert not run("--resume")
    again = json.loads((tmp_path / "fig4.json").read_text())["rows"]
    assert again == rows


def test_flow_of_many_features_is_measured_too(tmp_path, monkeypatch):
    monkeypatch.setattr(estimates, "PROBES", 10)
    monkeypatch.setattr(estimates, "BLOCKS", 1)
    monkeypatch.setitem(estimates.MODELS, "digits", (8, 8))
    flow = estimates.Flow("digits", 0.9, 0, Effort(2, 2, 1), None, tmp_path)
    state = torch.random.get_rng_state()
    outcome = estimates.perform(flow)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert outcome.features == 64
    broken = dataclasses.replace(outcome, tightest=1.5)
    assert "broken in 1 of 2 flows" in " ".join(fig4.sentences([outcome, broken]))


BAD = {
    "several seeds": (("--seed", 1, "--seed", 2), "give --seed once"),
    "an unknown model": (("--models", "moons"), "Known: two-moons, digits"),
    "an option of another study": (("--targets", "two_moons"), "belongs to posteriors"),
}


@pytest.mark.parametrize(("arguments", "advice"), BAD.values(), ids=BAD)
def test_bad_use_ends_with_one_line(run, arguments, advice, capsys):
    assert run(*arguments) == 2
    assert advice in capsys.readouterr().err
