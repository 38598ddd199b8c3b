"""How long a contender trains, and at which rates."""

from itertools import pairwise

import pytest
import torch

pytest.importorskip("nflows")
pytest.importorskip("lightning")

from nflows.flows.realnvp import SimpleRealNVP

from iresnet_flows.experiments.budgets import Budget
from iresnet_flows.experiments.comparison import training as module
from iresnet_flows.experiments.comparison.contenders import CONTENDERS
from iresnet_flows.experiments.comparison.training import FLOOR, Order, Training, fit
from iresnet_flows.experiments.data import load
from iresnet_flows.experiments.seeds import seeded

FIRST = CONTENDERS["realnvp"].learning_rate


def training(steps=200):
    flow = SimpleRealNVP(2, 8, 2, 1)
    return Training(flow, CONTENDERS["realnvp"], load("two-moons", None), Budget(steps=steps), 0)


def test_the_rate_falls_linearly_over_the_budget():
    made = training()
    rates = []
    for made.steps in (0, 100, 200):
        rates.append(made.rate)
    assert rates == pytest.approx([FIRST, FLOOR + (FIRST - FLOOR) / 2, FLOOR])
    assert made.over


@pytest.mark.parametrize(("steps", "end"), [(80, 100), (190, 200)])
def test_cooling_takes_up_the_best_weights_and_ends_within_a_tenth(steps, end):
    made = training()
    made.validate()
    best = {name: value.clone() for name, value in made.best_weights.items()}
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1)
    made.steps = steps
    before = made.rate
    made.cool()
    assert all(torch.equal(value, best[name]) for name, value in made.flow.state_dict().items())
    assert made.rate == pytest.approx(before)
    made.steps = (steps + end) // 2
    assert made.rate == pytest.approx(FLOOR + (before - FLOOR) / 2)
    assert not made.over
    made.steps = end
    assert made.rate == pytest.approx(FLOOR)
    assert made.over


def test_a_training_that_stagnates_cools_once_and_is_over(tmp_path, monkeypatch):
    made = training(steps=1000)
    reads = iter(range(10**6))
    seen = []

    def validate():
        made.flow.eval()
        nats = float(next(reads))
        made.curve.append((made.steps, made.seconds, nats))
        if nats < made.best:
            made.best, made.best_weights = nats, {**made.flow.state_dict()}
        seen.append(made.rate)
        made.flow.train()

    monkeypatch.setattr(made, "validate", validate)
    fit(made, tmp_path, "cpu", lambda *_: None)
    stagnated = (module.PATIENCE + 1) / module.VALIDATIONS
    assert made.start == pytest.approx(stagnated, abs=1e-3)
    assert made.steps == pytest.approx(1000 * (stagnated + module.COOLING), abs=1)
    falls = [a - b for a, b in pairwise(seen)]
    assert min(falls[21:]) > 3 * max(falls[:19])


def test_a_noisy_flow_is_read_with_the_same_draws_each_time():
    flow = CONTENDERS["residual-flow"].make(2, 8)
    made = Training(flow, CONTENDERS["residual-flow"], load("two-moons", None), Budget(steps=9), 0)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    made.validate()
    made.validate()
    assert made.curve[0][2] == made.curve[1][2]
    assert torch.equal(torch.get_rng_state(), before)


def test_each_epoch_is_a_permutation_of_the_rows_that_fill_batches():
    order = Order(600, 3)
    epochs = [torch.cat([order.at(2 * epoch + i) for i in range(2)]) for epoch in range(2)]
    for rows in epochs:
        assert len(rows.unique()) == len(rows) == 512
    assert not torch.equal(*epochs)
    assert torch.equal(Order(600, 3).at(3), order.at(3))
    assert not torch.equal(Order(600, 4).at(3), order.at(3))


def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path):
    def begin():
        with seeded(0):
            flow = CONTENDERS["residual-flow"].make(2, 8)
        return Training(
            flow, CONTENDERS["residual-flow"], load("two-moons", None), Budget(steps=60), 0
        )

    def cut(spent, _):
        if spent > 0.6:
            raise KeyboardInterrupt

    whole, first, second = begin(), begin(), begin()
    fit(whole, tmp_path / "whole", "cpu", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        fit(first, tmp_path / "cut", "cpu", cut)
    fit(second, tmp_path / "cut", "cpu", lambda *_: None)
    assert second.steps == whole.steps
    assert [nats for _, _, nats in second.curve] == [nats for _, _, nats in whole.curve]
    torch.testing.assert_close(second.flow.state_dict(), whole.flow.state_dict(), rtol=0, atol=0)
