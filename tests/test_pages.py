"""The examples of the README and of the pages run, and print what is shown below them."""

import re
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
HOSTS = ("nflows", "pyro", "normflows", "torchdiffeq", "zuko", "sbi")
EXAMPLE = re.compile(r"```python\n(.*?)```(?:\s+```text\n(.*?)```)?", flags=re.DOTALL)
EXAMPLES = [
    pytest.param(page, *example, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, example in enumerate(EXAMPLE.findall(page.read_text(encoding="utf-8")))
]


def needs(example):
    named = (*HOSTS, "flowcon")
    hosts = [host for host in named if re.search(rf"(import|from) {host}\b", example)]
    ours = [host for host in HOSTS if f"iresnet_flows.{host}" in example]
    experiments = ["sklearn", "lightning"] if "iresnet_flows.experiments" in example else []
    bridged = HOSTS if "bridge" in example or "ffjord" in example else ()
    return [*hosts, *ours, *experiments, *bridged]


@pytest.fixture
def _own_parameters():
    """Pyro keeps parameters by name for a whole process, and each example is to begin anew."""
    try:
        import pyro
    except ImportError:
        yield
    else:
        with pyro.get_param_store().scope():
            yield


@pytest.mark.usefixtures("_own_parameters")
@pytest.mark.parametrize(("page", "example", "shown"), EXAMPLES)
def test_example_runs(page, example, shown, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # sbi writes its logs where it is run
    for host in needs(example):
        pytest.importorskip(host)
    exec(compile(example, page.name, "exec"), {})
    if shown:
        printed = capsys.readouterr().out
        assert OutputChecker().check_output(shown, printed, ELLIPSIS), printed


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_of_the_docs_that_a_page_names_are_there(page):
    named = set(re.findall(r"\bdocs/[\w/-]+\.\w+", page.read_text(encoding="utf-8")))
    assert not {name for name in named if not (ROOT / name).is_file()}
