"""Every public name has an example in its docstring."""

import inspect
from importlib import import_module

import pytest

PUBLIC = ("blocks", "errors", "inverse", "layers", "lipschitz", "logdet", "maps", "models")
HOSTED = {
    "ffjord": "torchdiffeq",
    "distributions": "torch",
    **{host: host for host in ("nflows", "pyro", "normflows", "zuko", "sbi")},
    "bridge": "zuko",
}
WITH_ANOTHER = ("Picard",)  # that of Solver
OF_OTHERS = (  # what only a host or a command raises
    *("DataError", "StorageError", "UnmatchedContender", "UsageError"),
    *("IntegrationFailed", "InverseNotAvailable"),
)


def names(module):
    return [name for name in module.__all__ if name not in (*WITH_ANOTHER, *OF_OTHERS)]


@pytest.mark.parametrize("name", [*PUBLIC, *HOSTED])
def test_public_names_have_an_example(name):
    pytest.importorskip(HOSTED.get(name, "torch"))
    module = import_module(f"iresnet_flows.{name}")
    missing = [n for n in names(module) if ">>>" not in (inspect.getdoc(getattr(module, n)) or "")]
    assert not missing
