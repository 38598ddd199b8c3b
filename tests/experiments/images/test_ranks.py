"""Training on two processes, which torchrun starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("nflows")

import trained_ranks
from image_cases import write_folder
from trained_ranks import CASES, trained

from iresnet_flows.experiments.images.runs import load_run

DENSITIES = ("exact", "series", "roulette", "i-resnet in low memory", "residual flow")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks of each training found, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
    command = [sys.executable, "-m", *launcher, str(Path(trained_ranks.__file__)), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not result.returncode, result.stderr
    return {
        case: [torch.load(folder / f"{case}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for case in CASES
    }


@pytest.mark.parametrize("case", CASES)
def test_ranks_end_with_the_same_weights_to_the_bit(case, ranks):
    one, other = (found["weights"] for found in ranks[case])
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("case", DENSITIES)
def test_two_ranks_train_as_one_process_with_the_whole_batch(case, ranks, tmp_path):
    alone, both = trained(case, tmp_path), ranks[case][0]
    assert len(both["losses"]) == trained_ranks.STEPS
    torch.testing.assert_close(both["losses"], alone["losses"], atol=1e-4, rtol=1e-4)
    for name, value in alone["weights"].items():
        torch.testing.assert_close(both["weights"][name], value, atol=2e-4, rtol=1e-3)


def test_ranks_draw_series_of_the_same_length(ranks):
    one, other = (found["lengths"] for found in ranks["roulette"])
    assert len(one) == trained_ranks.STEPS
    assert torch.equal(one, other)


def test_fit_starts_a_second_process_by_itself(tmp_path):
    pytest.importorskip("typer")
    data, run = write_folder(tmp_path / "mine"), tmp_path / "run"
    arguments = ("fit", str(data), "--devices", "2", "--steps", "3", "--out", str(run))
    command = [sys.executable, "-m", "iresnet_flows", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not result.returncode, result.stderr
    assert result.stdout.count("3 steps in") == 1  # the first of them speaks
    lines = (run / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "1", "3"]
    assert load_run(run)[0].model == "i-resnet"
