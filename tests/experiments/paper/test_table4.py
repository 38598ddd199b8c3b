"""Table 4 and Figure 5, small, as a person types them."""

import json
import struct

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("nflows")
pytest.importorskip("torchdiffeq")
pytest.importorskip("typer")

from commands import command
from image_cases import DENSITY, images

from iresnet_flows.experiments.images import likelihoods, specs
from iresnet_flows.experiments.images.data import load_images
from iresnet_flows.experiments.images.densities import DENSITIES
from iresnet_flows.experiments.images.rivals import RIVALS
from iresnet_flows.experiments.paper import fig5, table4


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Our density in small, and the work in this process."""
    monkeypatch.setattr(specs, "each_in_parallel", lambda items, *rest: map(rest[-1], items))
    monkeypatch.setitem(DENSITIES["quick"], "i-resnet", DENSITY)


@pytest.fixture
def data(tmp_path):
    """Few images as MNIST and as CIFAR-10."""
    folder, cifar = tmp_path / "data" / "mnist", tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    cifar.mkdir()
    for seed, name in enumerate((*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")):
        part = images(10, (3, 32, 32), classes=10, seed=seed)
        records = torch.cat((part.labels[:, None].to(torch.uint8), part.pixels.flatten(1)), 1)
        (cifar / f"{name}.bin").write_bytes(records.numpy().tobytes())
    for name, count in (("train", 60), ("t10k", 40)):
        part = images(count, (1, 8, 8), seed=count)
        for kind, array in (("images-idx3", part.pixels[:, 0]), ("labels-idx1", part.labels)):
            header = struct.pack(f">4B{array.dim()}I", 0, 0, 8, array.dim(), *array.shape)
            path = folder / f"{name}-{kind}-ubyte"
            path.write_bytes(header + array.to(torch.uint8).numpy().tobytes())
    return folder.parent


@pytest.fixture
def run(data, monkeypatch):
    return lambda *arguments: perform(monkeypatch, data, *arguments)


def perform(monkeypatch, data, what, models, *further):
    out = data.parent / "out"
    options = ("--minutes", "0.003", "--data-dir", str(data), "--out", str(out))
    assert not command(monkeypatch, "reproduce", what, "--models", models, *options, *further)
    return out


def test_table4_compares_and_resumes_and_fig5_draws_from_it(run, monkeypatch):
    names = ("i-resnet", *RIVALS["quick"])
    out = run("table4", ",".join(names))
    record = json.loads((out / "table4.json").read_text())
    assert {row["model"] for row in record["rows"]} == set(names)
    for row in record["rows"]:
        assert row["bits"] is not None and row["image_error"] > 0, row
        assert row["step_ms"] == pytest.approx(1000 * row["seconds"] / row["steps"])
    text = (out / "table4.md").read_text()
    assert "all 60 training images, the first 40 test images" in text
    assert "| mnist | MADE |" in text and "2.04 (unverified)" in text
    assert (out / "table4.png").stat().st_size > 10_000

    def refuse(*_, **__):
        raise AssertionError("trains again")

    monkeypatch.setattr(specs, "carry_out", refuse)
    run("table4", ",".join(names), "--resume")
    again = json.loads((out / "table4.json").read_text())
    assert again["rows"] == record["rows"]

    run("fig5", "i-resnet")
    figure = json.loads((out / "fig5.json").read_text())
    assert figure["temperatures"] == [0.7, 0.85, 1.0]
    assert figure["rows"][0]["bits"] == record["runs"][0]["bits"]
    assert (out / "fig5.png").stat().st_size > 10_000


def test_fig5_trains_what_is_missing(run):
    out = run("fig5", "made")
    assert json.loads((out / "fig5.json").read_text())["rows"][0]["steps"] > 0


def test_densities_of_cifar10_are_made_in_small_too(run, monkeypatch, capsys):
    read = []

    def load(name, folder):
        read.append(name)
        return load_images(name, folder)

    monkeypatch.setattr(fig5, "load_images", load)
    out = run("table4", "i-resnet", "--data", "cifar10")
    (row,) = json.loads((out / "table4.json").read_text())["rows"]
    assert (row["data"], row["paper"]) == ("cifar10", 3.45)
    capsys.readouterr()

    run("fig5", "i-resnet", "--data", "cifar10")
    record = json.loads((out / "fig5.json").read_text())
    (found,) = record["rows"]
    assert read == ["cifar10"]
    assert "fig5 --models i-resnet" in record["command"]
    assert (found["data"], found["train_images"], found["test_images"]) == ("cifar10", 50, 10)
    assert found["bits"] == row["bits"]
    said = " ".join(capsys.readouterr().out.split())
    assert f"Tiny: {found['steps']} steps on 50 images of cifar10, weights averaged" in said


def test_models_are_tried_out_and_read_where_they_are_trained(run, monkeypatch):
    tried, read = [], []
    load = fig5.load_run

    def load_run(folder, device):
        read.append(device)
        return load(folder)

    monkeypatch.setattr(fig5, "load_run", load_run)
    monkeypatch.setattr(specs, "torch_device", lambda name: f"the {name}")
    monkeypatch.setattr(specs, "try_out", lambda run, data, device: tried.append(device))
    run("fig5", "i-resnet")
    assert (tried, read) == (["the cpu"], ["cpu"])


def test_training_that_fails_leaves_its_reason_in_the_table(run, monkeypatch):
    def diverge(*_, **__):
        raise specs.Diverged("the loss became nan at step 3")

    monkeypatch.setattr(specs, "carry_out", diverge)
    out = run("table4", "nice")
    assert "nice, mnist, seed 0: the loss became nan at step 3." in (out / "table4.md").read_text()


def test_seeds_give_a_standard_error():
    outcomes = [
        likelihoods.Outcome("mnist", "made", s, 9, 9, None, b, 0.1, 5, 10, 2.0)
        for s, b in enumerate((1.0, 2.0, 3.0))
    ]
    row = table4.summary(outcomes)
    assert row["bits"] == 2.0
    assert row["seed_error"] == pytest.approx(3**-0.5)
    assert row["image_error"] == pytest.approx(0.1)
    assert row["step_ms"] == pytest.approx(200.0)


def test_unknown_names_are_refused_in_one_line(data, monkeypatch, capsys):
    options = ("--data-dir", data, "--out", data.parent / "out")
    assert command(monkeypatch, "reproduce", "fig5", "--data", "cifar100", *options) == 2
    assert "unknown data 'cifar100'" in capsys.readouterr().err
    assert command(monkeypatch, "reproduce", "table4", "--models", "glov", *options) == 2
    said = capsys.readouterr().err
    assert "unknown model 'glov': did you mean 'glow'? Known: i-resnet, nice" in " ".join(
        said.split()
    )
