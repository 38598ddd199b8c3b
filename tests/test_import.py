"""What an import brings along, and what it says where a host is absent."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOSTS = ("nflows", "normflows", "pyro", "zuko", "sbi", "torchdiffeq", "lightning")

ADAPTERS = [
    ("nflows", "nflows", "nflows"),
    ("pyro", "pyro", "pyro-ppl"),
    ("normflows", "normflows", "normflows"),
    ("zuko", "zuko", "zuko"),
    ("sbi", "sbi", "sbi"),
    ("ffjord", "torchdiffeq", "torchdiffeq"),
]


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not result.returncode, result.stderr
    return result.stdout


def test_the_package_imports_no_host():
    code = f"""
import sys
import iresnet_flows, iresnet_flows.distributions, iresnet_flows.layers, iresnet_flows.bridge
print([host for host in {HOSTS} if host in sys.modules])
"""
    assert python(code).strip() == "[]"


def test_the_package_does_not_bring_the_compiler_along():
    code = "import sys; import iresnet_flows; print('torch._dynamo' in sys.modules)"
    assert python(code).strip() == "False"


@pytest.mark.parametrize(("module", "host", "package"), ADAPTERS, ids=[a[0] for a in ADAPTERS])
def test_an_absent_host_is_answered_with_the_extra_that_brings_it(module, host, package):
    code = f"""
import sys
sys.modules[{host!r}] = None
from iresnet_flows.errors import MissingExtra
try:
    import iresnet_flows.{module}
except MissingExtra as error:
    print(error)
"""
    message = python(code)
    assert message.startswith(package)
    assert f"pip install 'iresnet-flows[{module}]'" in message


@pytest.mark.parametrize("host", ["nflows", "pyro", "normflows", "zuko"])
def test_the_bridge_imports_one_host_and_copies_without_the_others(host):
    pytest.importorskip(host)
    code = f"""
import pickle, sys
import torch
from torch.distributions.transforms import AffineTransform, ComposeTransform, ExpTransform
from iresnet_flows.bridge import to_{host}
given = ComposeTransform([ExpTransform(), AffineTransform(1.0, torch.tensor([2.0, 3.0])).inv])
layer = to_{host}(given).layer
copy = pickle.loads(pickle.dumps(layer))
x = torch.randn(5, 2)
assert torch.equal(copy.transform(x), given(x))
print([host for host in {HOSTS} if host in sys.modules])
"""
    assert python(code).strip() == f"[{host!r}]"


def test_every_public_name_is_there():
    code = """
import iresnet_flows
assert all(hasattr(iresnet_flows, name) for name in iresnet_flows.__all__)
print(iresnet_flows.__version__)
"""
    assert python(code).strip()
