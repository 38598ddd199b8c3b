"""Tables 2 and 3 and Figure 3, end to end and small."""

import json
import math
import struct
from dataclasses import replace

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("nflows")
pytest.importorskip("typer")

from commands import command
from image_cases import images
from torch.nn import functional as F

from iresnet_flows.experiments import processes
from iresnet_flows.experiments.drawing import save
from iresnet_flows.experiments.images.classification import Outcome, largest_bound
from iresnet_flows.experiments.images.classifiers import CLASSIFIERS, PAPER, steps
from iresnet_flows.experiments.images.recipes import suited
from iresnet_flows.experiments.paper import classifier_tables
from iresnet_flows.experiments.paper.classifier_tables import summary, verdict
from iresnet_flows.experiments.paper.fig3 import Restoration, iterated, picture, sentences
from iresnet_flows.experiments.paper.table2 import TABLE2
from iresnet_flows.experiments.studies import Settings
from iresnet_flows.models import Layout, i_resnet_classifier, vanilla_classifier

QUICK = ("--minutes", 0.001, "--jobs", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Few images as MNIST and as CIFAR-10."""
    folder = tmp_path_factory.mktemp("data")
    mnist, cifar = folder / "mnist", folder / "cifar10" / "cifar-10-batches-bin"
    mnist.mkdir()
    cifar.mkdir(parents=True)
    for name, count in (("train", 40), ("t10k", 12)):
        part = images(count, (1, 28, 28), classes=10)
        for kind, array in (("images-idx3", part.pixels[:, 0]), ("labels-idx1", part.labels)):
            header = struct.pack(f">4B{array.dim()}I", 0, 0, 8, array.dim(), *array.shape)
            body = array.to(torch.uint8).numpy().tobytes()
            (mnist / f"{name}-{kind}-ubyte").write_bytes(header + body)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for seed, name in enumerate(names):
        part = images(10, (3, 32, 32), classes=10, seed=seed)
        records = torch.cat((part.labels[:, None].to(torch.uint8), part.pixels.flatten(1)), 1)
        (cifar / name).write_bytes(records.numpy().tobytes())
    return folder


class Here:
    """A pool of this process alone."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def map(self, function, specs):
        return [function(spec) for spec in specs]


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(processes, "workers", lambda count: Here())


def test_table_2_is_trained_measured_and_resumed(data, tmp_path, monkeypatch, capsys):
    asked = ("reproduce", "table2", "--models", "i-resnet,vanilla,resnet-164", "--seed", 0)
    more = ("--seed", 1, "--data-dir", data, "--out", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert not command(monkeypatch, *asked, *more, *QUICK)
    assert "c = 0.9 is" in capsys.readouterr().out

    record = json.loads((tmp_path / "table2.json").read_text())
    rows = {row["model"]: row for row in record["rows"]}
    assert list(rows) == ["resnet-164", "vanilla", "i-resnet"]
    assert all(row["seeds"] == [0, 1] and not row["failed"] for row in rows.values())
    assert all(run["train_images"] == 40 for run in record["runs"])
    assert all(run["test_images"] == 12 for run in record["runs"])
    ours = rows["i-resnet"]
    assert ours["guaranteed"] and ours["bound"] <= ours["claim"] == 0.9**3
    assert ours["pixel_error"] < 1e-4
    assert not rows["vanilla"]["guaranteed"] and not rows["resnet-164"]["decodes"]
    text = (tmp_path / "table2.md").read_text()
    for words in ("0.40 (unverified)", "all 12 test images", "i-ResNet, c = 0.9: "):
        assert words in text

    weights = tmp_path / "runs" / "quick-mnist-i-resnet-seed0" / "weights.pt"
    before = weights.stat().st_mtime_ns
    assert not command(monkeypatch, *asked, *more, *QUICK, "--resume")
    assert weights.stat().st_mtime_ns == before
    assert json.loads((tmp_path / "table2.json").read_text())["rows"] == record["rows"]
    assert command(monkeypatch, *asked, *more, "--minutes", 1, "--jobs", 1, "--resume") == 2
    assert "was begun with minutes 0.001, not 1" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_table_3_and_figure_3_share_their_models(data, tmp_path, monkeypatch, capsys):
    pytest.importorskip("normflows")
    where = ("--data-dir", data, "--out", tmp_path, *QUICK)
    assert not command(monkeypatch, "reproduce", "table3", *where)
    record = json.loads((tmp_path / "table3.json").read_text())
    names = ["glow-affine", "glow-additive", "i-resnet-glow", "i-resnet"]
    assert [row["model"] for row in record["rows"]] == names
    assert all(row["guaranteed"] and row["pixel_error"] < 1e-3 for row in record["rows"])
    assert [row["claim"] for row in record["rows"]] == [None, None, 0.9**3, 0.9**3]
    assert "12.63 (unverified)" in (tmp_path / "table3.md").read_text()

    weights = tmp_path / "runs" / "quick-cifar10-i-resnet-seed0" / "weights.pt"
    before = weights.stat().st_mtime_ns
    capsys.readouterr()
    assert not command(monkeypatch, "reproduce", "fig3", *where)
    assert weights.stat().st_mtime_ns == before
    assert "its certified inverse errs by up to" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "fig3.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "fig3.json").read_text())
    ours, twin = found["rows"]
    assert ours["certified"] < 1e-4 and twin["certified"] is None
    assert ours["largest"][-1] < 1e-4 < ours["largest"][0]
    assert found["iterations"][-1] == 100
    assert "| 100 |" in (tmp_path / "fig3.md").read_text()


@pytest.mark.parametrize("what", ["table2", "table3", "fig3"])
def test_unknown_models_are_refused_in_a_line(what, data, tmp_path, monkeypatch, capsys):
    where = ("--data-dir", data, "--out", tmp_path)
    assert command(monkeypatch, "reproduce", what, "--models", "i-resnt", *where) == 2
    error = capsys.readouterr().err
    assert "unknown model 'i-resnt': did you mean 'i-resnet'? Known: " in error
    assert len(error.strip().splitlines()) == 1


def test_missing_images_are_named_in_a_line(tmp_path, monkeypatch, capsys):
    empty = tmp_path / "empty"
    assert command(monkeypatch, "reproduce", "table2", "--data-dir", empty, "--out", tmp_path) == 2
    assert str(empty) in capsys.readouterr().err


@pytest.mark.parametrize("name", CLASSIFIERS["quick"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=str)
def test_small_recipes_classify_both_kinds_of_images(name, shape):
    if name.startswith("glow"):
        pytest.importorskip("normflows")
    model = CLASSIFIERS["quick"][name].make(shape, 10)
    x = torch.rand(4, *shape)
    F.cross_entropy(model(x), torch.arange(4)).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    model.eval()
    with torch.no_grad():
        assert model(x).shape == (4, 10)
        if name not in ("vanilla", "resnet-164"):
            torch.testing.assert_close(model.decode(model.encode(x)), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 5, 7), (1, 6, 10), (2, 50, 50)], ids=str)
@pytest.mark.parametrize("name", ["i-resnet", "vanilla"])
def test_images_of_any_size_are_classified_and_restored(name, shape):
    model = CLASSIFIERS["quick"][name].make(shape, 3)
    x = torch.rand(4, *shape)
    model(x)
    with torch.no_grad():
        features = model.eval().encode(x)
        if name == "i-resnet":
            torch.testing.assert_close(model.decode(features), x, rtol=0, atol=1e-4)
    halved = features.shape[2:]
    assert halved == {5: (5, 7), 6: (3, 5), 50: (25, 25)}[shape[1]]


def test_paper_has_its_schedule_and_sizes():
    assert CLASSIFIERS["paper"].keys() == CLASSIFIERS["quick"].keys()
    rates = [steps(epoch / 200) for epoch in (0, 59, 60, 119, 120, 160, 200)]
    assert rates == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.008, 0.008])
    assert PAPER.layout((3, 32, 32)) == Layout((18, 18, 18), (False, True, True), padding=13)
    assert PAPER.layout((2, 50, 50)).squeezes == (False, True, False)
    assert PAPER.layout((1, 28, 28)) == Layout((7, 7, 7), (False, True, True), padding=15)


def test_photographs_are_mirrored_and_digits_are_not():
    recipe = CLASSIFIERS["paper"]["i-resnet"]
    for shape, expected in (((1, 4, 4), (2, False)), ((3, 4, 4), (4, True))):
        fit = suited(recipe, shape)
        assert (fit.shift, fit.flip) == expected


def outcome(model, seed, wrong):
    return Outcome(
        *("mnist", model, seed, 100, 50),
        wrong=wrong,
        wrong_error=0.01,
        guaranteed=model != "vanilla",
        bound=0.95 if model == "i-resnet" else None,
        claim=0.9 if model == "i-resnet" else None,
    )


def test_errors_are_those_over_seeds_and_images():
    found = summary([outcome("i-resnet", seed, wrong) for seed, wrong in enumerate((0.1, 0.4))])
    assert found["wrong"] == pytest.approx(0.25)
    assert found["seed_error"] == pytest.approx(0.15)  # 0.3 / sqrt(2) / sqrt(2)
    assert found["image_error"] == pytest.approx(0.01)
    lost = summary([replace(outcome("i-resnet", 3, None), failure="the loss became nan")])
    assert lost["wrong"] is None
    assert lost["failed"] == [3]


def test_verdict_tells_the_gap_and_bounds_above_their_claim():
    record = {"data": "mnist", "title": "ours", "paper": None, "paper_verified": False}
    ours = {**record, "model": "i-resnet", **summary([outcome("i-resnet", 0, 0.3)])}
    twin = {**record, "model": "vanilla", **summary([outcome("vanilla", 0, 0.1)])}
    gap, bounds = verdict([ours, twin])
    assert "+20.00 ± 1.41 points from Vanilla (images)" in gap
    assert bounds == "mnist: bounds above their claim: ours."
    assert classifier_tables.cells(twin)[6] == ""


@pytest.mark.parametrize("bound", [None, float("nan")])
def test_a_bound_that_one_seed_lacks_is_told(bound):
    record = {"data": "mnist", "title": "ours", "paper": None, "paper_verified": False}
    runs = [outcome("i-resnet", 0, 0.3), replace(outcome("i-resnet", 1, 0.3), bound=bound)]
    row = {**record, "model": "i-resnet", **summary(runs)}
    assert classifier_tables.cells(row)[7] == "not finite"
    assert verdict([row]) == ["mnist: bounds that are not finite: ours."]
    free = {**record, "model": "vanilla", **summary([outcome("vanilla", 0, 0.1)])}
    assert classifier_tables.cells(free)[7] == ""


def test_a_branch_whose_weights_are_no_numbers_has_no_bound():
    model = vanilla_classifier((2, 4, 4), 3, Layout((1,), (False,)), (4,))
    with torch.no_grad():
        assert largest_bound(model) > 0
        next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d)).weight.fill_(math.nan)
        assert largest_bound(model) is None


def test_an_inverse_that_is_not_finite_is_guaranteed_in_exact_arithmetic_alone():
    record = {"title": "Glow", "model": "glow-affine", "paper": None, "paper_verified": False}
    lost, found = ("yes, in exact arithmetic", "not finite"), ("yes", "1.0e-06")
    for error, said in ((None, lost), (1e-6, found)):
        of_glow = replace(outcome("glow-affine", 0, 0.1), decodes=True, pixel_error=error)
        row = {**record, **summary([of_glow])}
        assert tuple(classifier_tables.cells(row)[5:7]) == said


@pytest.mark.parametrize(
    ("seeds", "scale", "model", "wanted"),
    [
        (None, "quick", "vanilla", [0, 1, 2]),
        (None, "quick", "i-revnet", [0]),
        ((4, 5), "quick", "i-revnet", [4, 5]),
        (None, "paper", "i-revnet", [0, 1, 2]),
    ],
)
def test_further_seeds_are_for_what_is_compared(seeds, scale, model, wanted, tmp_path):
    settings = Settings(scale, None, None, seeds, None, tmp_path, False, 1, "")
    given = seeds or TABLE2.seeds[scale]
    assert [seed for seed in given if TABLE2.wants(settings, model, seed)] == wanted


@pytest.mark.parametrize("make", [i_resnet_classifier, vanilla_classifier])
def test_iterated_twin_makes_so_many_steps(make):
    model = make((2, 4, 4), 3, Layout((1,), (False,)), (4,)).double().eval()
    x = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        y = model.encode(x)
        norm, block = model.layers.layers[0].layers
        g = block.branch if make is i_resnet_classifier else block.g
        h = y
        for _ in range(3):
            h = y - g(h)
        expected = norm.invert(h) * 0.25 + 0.5
        torch.testing.assert_close(iterated(model, 3).decode(y), expected)


def test_iterations_that_diverge_are_drawn_and_said(tmp_path):
    lost = outcome("vanilla", 0, 0.1)
    x, nan = torch.rand(12, 1, 4, 4), float("nan")
    for errors in ((1e2, 1e9, *[nan] * 6), (nan,) * 8):
        found = Restoration("Vanilla", lost, nan * x, errors, errors)
        save(tmp_path / "picture.png", picture(x, [found]))
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
        assert sentences([found])[0].endswith("the largest error of a pixel is not finite.")
