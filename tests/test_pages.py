"""The examples of the README and of the pages run, as they stand there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOSTS = ("nflows", "pyro", "normflows", "torchdiffeq", "zuko", "sbi")
EXAMPLES = [
    pytest.param(page, example, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, example in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    )
]


def needs(example):
    hosts = [host for host in HOSTS if re.search(rf"(import|from) {host}\b", example)]
    ours = [host for host in HOSTS if f"iresnet_flows.{host}" in example]
    return [*hosts, *ours, *(HOSTS if "bridge" in example or "ffjord" in example else ())]


@pytest.mark.parametrize(("page", "example"), EXAMPLES)
def test_example_runs(page, example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # sbi writes its logs where it is run
    for host in needs(example):
        pytest.importorskip(host)
    exec(compile(example, page.name, "exec"), {})


def test_there_are_examples():
    assert len(EXAMPLES) >= 4
