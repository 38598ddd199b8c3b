"""Figure 1: crossings that are known, slopes, and the command, small, as a person types it."""

from __future__ import annotations

import itertools
import json
import math
import pickle

import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("typer")

from commands import command

from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.experiments.paper import systems, trainings
from iresnet_flows.experiments.paper.systems import Shape, System
from iresnet_flows.experiments.paper.trajectories import crossings, slopes, trajectories
from iresnet_flows.models import IteratedBlock


def linear(slope):
    """The map of the line with that slope, as a block."""
    g = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(g.weight, slope - 1)
    return IteratedBlock(g)


def test_a_reflection_crosses_all_neighbours_at_the_middle_of_its_layer():
    paths = trajectories([linear(2.0), linear(-1.0)], torch.tensor([-1.0, 0.0, 2.0, 3.0]))
    assert paths.tolist() == [[-1, 0, 2, 3], [-2, 0, 4, 6], [2, 0, -4, -6]]
    torch.testing.assert_close(crossings(paths), torch.tensor([[1.5, 0.0]] * 3))


def test_a_collapse_is_a_crossing_at_the_end_of_its_layer_and_is_found_once():
    paths = torch.tensor([[0.0, 1.0, 5.0], [3.0, 3.0, 5.0], [3.0, 3.0, 4.0]])
    assert crossings(paths).tolist() == [[1.0, 3.0]]


def test_paths_in_order_have_none():
    paths = torch.tensor([[0.0, 1.0, 2.0], [-3.0, 4.0, 4.5]])
    assert crossings(paths).shape == (0, 2)


def test_crossings_are_where_the_straight_lines_of_neighbours_meet():
    generator = torch.Generator().manual_seed(0)
    paths = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    expected = []
    for depth, (start, end) in enumerate(itertools.pairwise(paths)):
        for i, j in itertools.pairwise(start.argsort().tolist()):
            # start + t (end - start), the same for both.
            system = torch.stack((paths.new_ones(2), (start - end)[[i, j]]), 1)
            value, t = torch.linalg.solve(system, start[[i, j]]).tolist()
            if 0 < t <= 1:
                expected.append((depth + t, value))
    assert len(expected) > 3
    torch.testing.assert_close(crossings(paths), paths.new_tensor(expected))


def test_slope_is_the_derivative():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    layers = [IteratedBlock(torch.nn.Tanh()), linear(3.0).double()]
    torch.testing.assert_close(slopes(layers, x), 3 * (2 - x.tanh() ** 2))


def test_blocks_with_a_bound_keep_the_order_and_the_certified_slope():
    torch.manual_seed(0)
    layers = [InvertibleResidualBlock(LipschitzMLP(1, (8, 8), 0.9)).double() for _ in range(6)]
    x = torch.linspace(-2, 2, 501, dtype=torch.float64)
    certified = math.prod(1 - float(layer.branch.lipschitz_bound()) for layer in layers)
    assert not len(crossings(trajectories(layers, x)))
    assert slopes(layers, x).min() >= certified > 0


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The command at a small size, in this process."""
    monkeypatch.setitem(systems.SHAPES, "quick", Shape(4, (8, 8), 20, (0, 1)))
    monkeypatch.setattr(trainings, "each_in_parallel", lambda items, *rest: map(rest[-1], items))
    return lambda *more: command(monkeypatch, "reproduce", "fig1", "--out", tmp_path, *more)


def test_command_compares_draws_and_goes_on_with_what_is_there(run, tmp_path, monkeypatch, capsys):
    assert not run()
    said = capsys.readouterr().out
    assert "i-ResNet: paths cross in 0 of 2 trainings" in said
    assert (tmp_path / "fig1.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "fig1.json").read_text())["rows"]
    named = [(row["model"], row["seed"]) for row in rows]
    assert named == [("resnet", 0), ("i-resnet", 0), ("resnet", 1), ("i-resnet", 1)]
    for row in rows:
        assert row["optimiser_steps"] == 20
        if row["model"] == "i-resnet":
            assert row["crossings"] == []
            assert row["smallest_slope"] >= row["certified_slope"] > 0
            assert row["inverse_error"] < 1e-6
    assert "![Paths" in (tmp_path / "fig1.md").read_text()

    def refused(*_):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(trainings, "train", refused)
        assert not run("--resume", "--models", "i-resnet")
    again = json.loads((tmp_path / "fig1.json").read_text())["rows"]
    assert again == [row for row in rows if row["model"] == "i-resnet"]
    assert run("--resume", "--minutes", 1) == 2
    assert "was begun with minutes None" in capsys.readouterr().err


def test_interrupted_command_says_how_to_go_on(run, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainings, "train", interrupted)
    assert run() == 130
    assert "--resume" in capsys.readouterr().out


def test_loss_that_is_no_number_ends_with_one_line(run, monkeypatch, capsys):
    monkeypatch.setattr(systems, "NOISE", math.inf)
    assert run() == 2
    assert "at step 0: give another --seed" in capsys.readouterr().err


def test_unknown_model_is_refused(run, capsys):
    assert run("--models", "resnt") == 2
    assert "Known: resnet, i-resnet" in capsys.readouterr().err


def test_minutes_end_a_training_and_no_global_state_is_drawn_from(tmp_path):
    state = torch.random.get_rng_state()
    shape = Shape(2, (4, 4), 10**9, ())
    system = pickle.loads(pickle.dumps(System("resnet", 3, shape, 0.002, tmp_path)))
    outcome = systems.perform(system)
    assert 0 < outcome.trained.seconds < 5
    assert torch.equal(torch.random.get_rng_state(), state)
