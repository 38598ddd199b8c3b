"""The studies that measured what the pages say, small; that of the defaults has its own tests."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "studies"
TRAINED = ("lightning", "nflows", "rich", "sklearn")


@pytest.fixture
def script(monkeypatch):
    """Imports a study of that name as a module, beside what the studies share."""
    monkeypatch.syspath_prepend(FOLDER)

    def load(name):
        spec = importlib.util.spec_from_file_location(f"{name}_study", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        return module

    return load


def needed(name):
    for package in {"crossovers": (), "lengths": ("numpy",)}.get(name, TRAINED):
        pytest.importorskip(package)


def test_times_that_cross_are_measured(script, monkeypatch, capsys):
    study = script("crossovers")
    small = {"ROWS": 4, "WIDTHS": (4,), "DIMENSIONS": (2,), "STEPS": 1, "ROUNDS": 2}
    for name, value in small.items():
        monkeypatch.setattr(study, name, value)
    study.main([])
    *_, heads, _, row = capsys.readouterr().out.splitlines()
    assert row.startswith("| 4 | 2 | ")
    assert row.count("|") == heads.count("|")


def test_lengths_of_roulette_are_compared(script, monkeypatch, capsys):
    needed("lengths")
    study = script("lengths")
    small = {"NETS": (study.Net(3, (4, 4)),), "TERMS": (2,), "ROWS": 8, "STEPS": 1, "DRAWS": 3}
    for name, value in small.items():
        monkeypatch.setattr(study, name, value)
    study.main([])
    *_, heads, _, row = capsys.readouterr().out.splitlines()
    assert row.startswith("| d=3, 2x4 | ")
    assert row.count("|") == heads.count("|")


def test_a_rate_is_tried(script):
    needed("rates")
    assert script("rates").loss("nice", "two-moons", 1e-2, 0.2, None) < float("inf")


@pytest.mark.parametrize("name", ["crossovers", "defaults", "lengths", "rates"])
def test_help_measures_nothing(script, name, capsys):
    needed(name)
    with pytest.raises(SystemExit) as stop:
        script(name).main(["--help"])
    assert stop.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("crossovers", ["--rows", "3"], "unrecognized arguments: --rows 3"),
        ("lengths", ["again"], "unrecognized arguments: again"),
        ("rates", ["--models", "nobody"], "invalid choice: 'nobody'"),
        ("rates", ["--rates", "0"], "--rates: must be a positive number, got 0."),
        *(
            (name, given, said)
            for name in ("defaults", "rates")
            for given, said in (
                (["--seconds", "0"], "--seconds: must be a positive number, got 0."),
                (["--seconds", "nan"], "--seconds: must be a positive number, got nan."),
                (["--seconds", "soon"], "--seconds: invalid positive value: 'soon'"),
                (["--jobs", "0"], "--jobs: must be at least 1, got 0."),
            )
        ),
        ("rates", ["--data", "nope"], "unknown data 'nope'"),
        ("defaults", ["--seeds", "0"], "--seeds: must be at least 1, got 0."),
        ("defaults", ["--settings", "none"], "invalid choice: 'none'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_one_line(script, name, given, said, capsys):
    needed(name)
    study = script(name)
    with pytest.raises(SystemExit) as stop:
        study.main(given)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_study_of_the_defaults_without_its_data_is_refused(script, tmp_path, capsys):
    needed("defaults")
    assert script("defaults").main(["--data", "nope", "--out", str(tmp_path)]) == 2
    assert "nope" in capsys.readouterr().out
