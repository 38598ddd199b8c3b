"""A pickle among the files that a command reads is refused in one line, and not carried out."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

np = pytest.importorskip("numpy")
pytest.importorskip("lightning")
pytest.importorskip("nflows")
pytest.importorskip("typer")
pytest.importorskip("pyro")
pytest.importorskip("sbi")

from commands import command
from image_cases import CLASSIFIER, DENSITY, write_folder

import iresnet_flows
from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.comparison import runs
from iresnet_flows.experiments.images import catalogue
from iresnet_flows.experiments.images.runs import Run
from iresnet_flows.experiments.paper import systems
from iresnet_flows.experiments.tensors import load_arrays, load_tensors


class Malicious:
    """What runs when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def payload(tmp_path):
    return Malicious(tmp_path / "carried-out")


@pytest.fixture
def refused(payload, monkeypatch, capsys):
    """Gives the command and checks how it ends."""

    def check(*arguments):
        capsys.readouterr()
        assert command(monkeypatch, *arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("iresnet-flows: ")
        assert said.count("\n") == 1
        assert not payload.mark.exists()
        return said

    return check


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    recipes = {"density": {"i-resnet": DENSITY}, "classifier": {"i-resnet": CLASSIFIER}}
    monkeypatch.setattr(catalogue, "recipes", lambda kind, _: recipes[kind])


def test_the_payload_is_one(payload):
    pickle.loads(pickle.dumps(payload))
    assert payload.mark.exists()


def as_table(payload, path):
    path.write_bytes(pickle.dumps(payload))


def as_array(payload, path):
    array = np.empty((2, 2), object)
    array[:] = payload
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".parquet"])
@pytest.mark.parametrize("write", [as_table, as_array], ids=["a pickle", "an array of objects"])
def test_tables(suffix, write, payload, refused, tmp_path):
    path = tmp_path / f"mine{suffix}"
    write(payload, path)
    assert path.name in refused("compare", path, "--models", "nice", "--out", tmp_path / "out")


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "data_batch_1.bin"])
def test_images(name, payload, refused, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    as_table(payload, folder / name)
    refused("fit", folder, "--steps", 1, "--out", tmp_path / "out")


def run_folder(folder, kind):
    """A run that has come to an end, but for its weights."""
    folder.mkdir()
    run = Run(kind, "i-resnet", "quick", (1, 4, 4), 3, "mnist")
    (folder / "settings.json").write_text(json.dumps(asdict(run)))
    return folder


@pytest.mark.parametrize("name", ["weights.pt", "last.ckpt"])
@pytest.mark.parametrize("use", ["sample", "score"])
def test_weights(name, use, payload, refused, tmp_path):
    run = run_folder(tmp_path / "run", "density")
    torch.save(payload, run / name)
    assert name in refused(use, run, *(["mnist"] if use == "score" else []))


@pytest.mark.parametrize("kind", ["fit", "classify"])
def test_checkpoints_of_images(kind, payload, refused, tmp_path, monkeypatch):
    arguments = kind, write_folder(tmp_path / "mine"), "--steps", 1, "--out", tmp_path / "run"
    assert not command(monkeypatch, *arguments)
    torch.save({"state_dict": payload}, tmp_path / "run" / "last.ckpt")
    assert "last.ckpt" in refused(*arguments, "--resume")


COMPARE = ("compare", "circles", "--models", "nice,realnvp", "--steps", 5, "--out")


@pytest.mark.parametrize("jobs", [1, 2])
def test_checkpoints_of_a_comparison(jobs, payload, refused, tmp_path, monkeypatch):
    def stopped(_, folder, *__):
        folder.mkdir(parents=True)
        torch.save(payload, folder / runs.CHECKPOINT)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "fit", stopped)
        assert command(patch, *COMPARE, tmp_path, "--jobs", 1) == 130
    assert "last.ckpt" in refused(*COMPARE, tmp_path, "--jobs", jobs)


def test_results_of_a_comparison(payload, refused, tmp_path, monkeypatch):
    assert not command(monkeypatch, *COMPARE, tmp_path, "--jobs", 1)
    for path in tmp_path.glob("runs/*/arrays.npz"):
        np.savez(path, rows=np.array([payload], object))
    assert "arrays.npz" in refused(*COMPARE, tmp_path)
    assert "arrays.npz" in refused("report", tmp_path, "--out", tmp_path / "merged")

    for path in tmp_path.glob("runs/*/result.json"):
        path.write_bytes(pickle.dumps(payload))
    assert "result.json" in refused("report", tmp_path, "--out", tmp_path / "merged")


def test_weights_of_a_figure(payload, refused, tmp_path, monkeypatch):
    monkeypatch.setitem(systems.SHAPES, "quick", systems.Shape(4, (8, 8), 2, (0,)))
    arguments = ("reproduce", "fig1", "--jobs", 1, "--out", tmp_path)
    assert not command(monkeypatch, *arguments)
    for path in tmp_path.glob("**/weights.pt"):
        torch.save(payload, path)
    assert "weights.pt" in refused(*arguments, "--resume")


def test_reference_draws(payload, refused, tmp_path):
    path = tmp_path / "references" / "eight_schools.npy"
    path.parent.mkdir()
    as_array(payload, path)
    arguments = ("--targets", "eight_schools", "--models", "normal", "--out", tmp_path)
    assert path.name in refused("reproduce", "posteriors", *arguments)


@pytest.mark.parametrize(
    "damaged", [b"", b"not a zip", b"PK\x03\x04"], ids=["empty", "text", "cut"]
)
@pytest.mark.parametrize("load", [load_tensors, load_arrays])
def test_damaged_files(load, damaged, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(damaged)
    with pytest.raises(UsageError, match="is damaged"):
        load(path)


def test_nothing_else_loads():
    """Every load in the source is one of the two that refuse, or that of a table of a user."""
    source = Path(iresnet_flows.__file__).parent
    calls = re.compile(r"\b(?:torch|np|numpy|pickle|joblib|cloudpickle)\.loads?\(")
    found = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if calls.search(path.read_text(encoding="utf-8"))
    }
    assert found == {
        str(Path("experiments", "tensors.py")),
        str(Path("experiments", "data", "files.py")),
    }
