"""What every test shares: one thread and a seed."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def empty_param_store():
    pyro = pytest.importorskip("pyro")
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
