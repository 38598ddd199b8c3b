"""What a machine has is what torch can use of it."""

import pytest

pytest.importorskip("rich", reason="the experiments need their extra")

import torch

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.machines import torch_device


@pytest.fixture
def mac(monkeypatch):
    """A machine whose only GPU torch calls MPS."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("mac")
def test_a_mac_computes_on_its_cpu():
    pytest.importorskip("typer")
    from iresnet_flows.experiments.commands.app import check_device

    check_device("auto")
    assert torch_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"mps.*float64.*--device cpu"):
        check_device("mps")
    with pytest.raises(UsageError, match="no such device here"):
        check_device("gpu")


def test_runs_share_a_cpu_and_take_turns_on_a_gpu(monkeypatch):
    pytest.importorskip("typer")
    from iresnet_flows.experiments.commands.compare import runs_at_a_time

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runs_at_a_time(3, "cpu") == runs_at_a_time(3, "auto") == 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runs_at_a_time(None, "auto") == runs_at_a_time(1, "gpu") == 1
    with pytest.raises(UsageError, match="--jobs 3 is for the CPU"):
        runs_at_a_time(3, "gpu")
