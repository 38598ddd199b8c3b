"""The studies that measured what the pages say, small; that of the defaults has its own tests."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "studies"


def script(name):
    spec = importlib.util.spec_from_file_location(f"{name}_study", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_times_that_cross_are_measured(monkeypatch, capsys):
    study = script("crossovers")
    small = {"ROWS": 4, "WIDTHS": (4,), "DIMENSIONS": (2,), "STEPS": 1, "ROUNDS": 2}
    for name, value in small.items():
        monkeypatch.setattr(study, name, value)
    study.main()
    *_, heads, _, row = capsys.readouterr().out.splitlines()
    assert row.startswith("| 4 | 2 | ")
    assert row.count("|") == heads.count("|")


def test_lengths_of_roulette_are_compared(monkeypatch, capsys):
    pytest.importorskip("numpy")
    study = script("lengths")
    small = {"NETS": (study.Net(3, (4, 4)),), "TERMS": (2,), "ROWS": 8, "STEPS": 1, "DRAWS": 3}
    for name, value in small.items():
        monkeypatch.setattr(study, name, value)
    study.main()
    *_, heads, _, row = capsys.readouterr().out.splitlines()
    assert row.startswith("| d=3, 2x4 | ")
    assert row.count("|") == heads.count("|")


def test_a_rate_is_tried(monkeypatch, capsys):
    for package in ("lightning", "nflows", "rich", "sklearn"):
        pytest.importorskip(package)
    study = script("rates")
    assert study.loss("nice", "two-moons", 1e-2, 0.2, None) < float("inf")
    with pytest.raises(SystemExit):
        study.main(["--models", "nobody"])
    assert "invalid choice: 'nobody'" in capsys.readouterr().err
