"""The README's examples run, as they stand there."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
HOSTS = ("nflows", "pyro", "normflows", "torchdiffeq")


def needs(example):
    hosts = [host for host in HOSTS if f"import {host}" in example or f"from {host}" in example]
    return [*hosts, *HOSTS] if "bridge" in example else hosts


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.split("\n")[-2][:30])
def test_example_runs(example):
    for host in needs(example):
        pytest.importorskip(host)
    exec(compile(example, "README.md", "exec"), {})


def test_there_is_an_example_for_each_host():
    assert len(EXAMPLES) == 4
