"""The study of the defaults, small."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning")
pytest.importorskip("nflows")

import torch

from iresnet_flows import CayleyBlock, LipschitzMLP
from iresnet_flows.layers import Inverted

SCRIPT = Path(__file__).parents[2] / "docs" / "studies" / "defaults.py"
RUN = ("--data", "two-moons", "--seconds", "0.2", "--settings", "default", "bound 0.9")


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("defaults_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        yield module


def test_same_command_does_what_is_missing_and_nothing_else(study, tmp_path, capsys):
    command = [*RUN, "--seeds", "1", "--out", str(tmp_path)]
    assert study.main(command) == 0
    default, bound = sorted((tmp_path / "runs").iterdir(), reverse=True)
    assert json.loads(default.read_text())["steps"] > 0
    first = (tmp_path / "defaults.md").read_text()
    assert "| default |" in first
    assert "| bound 0.9 |" in first

    kept = default.stat().st_mtime_ns
    bound.unlink()
    capsys.readouterr()
    assert study.main(command) == 0
    assert "1 of 2 runs are to be done" in capsys.readouterr().out
    assert bound.exists()
    assert default.stat().st_mtime_ns == kept


def test_runs_of_another_length_are_not_mixed(study, tmp_path, capsys):
    (tmp_path / "seconds.json").write_text("20.0")
    assert study.main([*RUN, "--out", str(tmp_path)]) == 2
    assert "begun with --seconds 20" in capsys.readouterr().out


def test_stopped_study_leaves_its_table(study, tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "do", stop)
    assert study.main([*RUN, "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().out
    assert (tmp_path / "defaults.md").exists()


@pytest.mark.parametrize("name", ["default", "start last layer x 1", "start hidden biases 0"])
def test_start_is_the_one_asked_for(study, name):
    setting = study.SETTINGS[name]
    branches = [m for m in study.build(setting, 2).modules() if isinstance(m, LipschitzMLP)]
    assert len(branches) == setting.blocks
    for branch in branches:
        norm = torch.linalg.matrix_norm(branch.weights[-1].detach(), 2)
        assert norm == pytest.approx(setting.last, rel=1e-5)
        assert any(bias.any() for bias in list(branch.biases)[:-1]) == setting.phases


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [("layer Cayley", CayleyBlock, 12), ("layer alternating", Inverted, 6)],
)
def test_layers_are_those_asked_for(study, name, kind, count):
    flow = study.build(study.SETTINGS[name], 2)
    assert sum(isinstance(module, kind) for module in flow.modules()) == count
