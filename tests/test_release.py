"""What is released: its version, its contents, and that it works where it is unpacked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import iresnet_flows

ROOT = Path(__file__).parents[1]
MADE = {"_build", "auto_gallery", "sbi-logs"}  # what building the pages leaves


def test_changelog_and_citation_tell_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+) - (unreleased|\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert newest
    assert newest[1] == iresnet_flows.__version__
    assert f"\nversion: {iresnet_flows.__version__}\n" in citation


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution, and the wheel that is made of it."""
    for module in ("build", "hatchling", "hatch_fancy_pypi_readme"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def files(folder):
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {
        path.relative_to(ROOT).as_posix()
        for path in found
        if path.suffix != ".pyc" and MADE.isdisjoint(path.parts)
    }


def test_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {name.removeprefix("src/") for name in files("src")}
    assert "iresnet_flows/py.typed" in names
    assert "iresnet_flows/experiments/comparison/templates/report.html" in names
    assert built[1].stat().st_size < 1e6


def test_source_distribution_holds_what_its_tests_and_pages_need(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    needed = files("src") | files("tests") | files("docs")
    assert names >= needed | {"README.md", "tox.ini", "constraints.txt", "conftest.py", "LICENSE"}
    assert built[0].stat().st_size < 5e6


def test_an_index_shows_the_readme_without_what_is_not_there(built):
    with zipfile.ZipFile(built[1]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        text = message_from_string(wheel.read(name).decode()).get_payload()
    assert text.startswith("# iresnet_flows")
    assert text.rstrip().endswith((ROOT / "README.md").read_text(encoding="utf-8")[-40:].rstrip())
    assert not re.search(r"\]\((?!https?:|#)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def test_wheel_works_where_it_is_unpacked(built, tmp_path):
    with zipfile.ZipFile(built[1]) as wheel:
        wheel.extractall(tmp_path)
    code = "import iresnet_flows as f; print(f.__file__, f.__version__)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split()[0].startswith(str(tmp_path))
