"""fit, classify, sample, score and reproduce, as a person types them."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
import sys
import types

import pytest
import torch

np = pytest.importorskip("numpy")
pytest.importorskip("lightning")
pytest.importorskip("nflows")
pytest.importorskip("typer")

from commands import command
from image_cases import CLASSIFIER, DENSITY, TinyDensity, write_folder

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.images import catalogue, evaluation, steps, training
from iresnet_flows.experiments.images.architectures import residual
from iresnet_flows.experiments.images.catalogue import recipe
from iresnet_flows.experiments.images.data import load_images
from iresnet_flows.experiments.images.runs import load_run
from iresnet_flows.experiments.images.scores import grid
from iresnet_flows.experiments.studies import Settings
from iresnet_flows.experiments.upkeep import update_normflows

RECIPES = {"density": {"i-resnet": DENSITY}, "classifier": {"i-resnet": CLASSIFIER}}


@pytest.fixture(autouse=True)
def _recipes(monkeypatch):
    def recipes(kind, scale):
        catalogue.check_scale(scale)
        return RECIPES[kind]

    monkeypatch.setattr(catalogue, "recipes", recipes)


@pytest.fixture
def data(tmp_path):
    return write_folder(tmp_path / "mine")


def test_density_is_fitted_sampled_and_scored(data, tmp_path, monkeypatch, capsys):
    run, file = tmp_path / "run", tmp_path / "scores.csv"
    assert not command(monkeypatch, "fit", data, "--steps", 20, "--out", run)
    assert "bits/dim on 12 test images" in capsys.readouterr().out
    settings = json.loads((run / "settings.json").read_text())
    assert settings["kind"] == "density"
    assert settings["shape"] == [1, 4, 4]

    assert not command(monkeypatch, "score", run, data, "--out", file)
    said = capsys.readouterr().out
    assert re.search(r"scores ━+ 1/1", said)
    assert "bits/dim (mean and standard error, 12 test images)" in said
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [int(row["image"]) for row in rows] == list(range(12))
    nats = torch.tensor([float(row["nats"]) for row in rows], dtype=torch.float64)
    bits = torch.tensor([float(row["bits_per_dim"]) for row in rows], dtype=torch.float64)
    torch.testing.assert_close(bits, nats / (16 * math.log(2)))
    _, model = load_run(run)
    assert torch.equal(nats, evaluation.nats(model, load_images(data).test))

    assert not command(monkeypatch, "sample", run, "-n", 5)
    picture = (run / "samples.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    for name in ("one.npy", "other.npy"):
        assert not command(
            *(monkeypatch, "sample", run, "-n", 5, "--temperature", 0.7, "--out", tmp_path / name)
        )
    drawn = np.load(tmp_path / "one.npy")
    assert drawn.shape == (5, 1, 4, 4)
    assert drawn.dtype == np.uint8
    assert (drawn == np.load(tmp_path / "other.npy")).all()


@pytest.mark.parametrize("use", ["fit", "classify"])
def test_a_run_without_test_images_ends_well_and_says_so(use, tmp_path, monkeypatch, capsys):
    data = write_folder(tmp_path / "mine", test=0)
    assert not command(monkeypatch, use, data, "--steps", 1, "--out", tmp_path / "run")
    assert "There are no test images to score." in " ".join(capsys.readouterr().out.split())


def test_one_class_is_refused_before_the_training(tmp_path, monkeypatch, capsys):
    data, run = write_folder(tmp_path / "mine"), tmp_path / "run"
    for path in data.glob("*labels*"):
        written = path.read_bytes()
        path.write_bytes(written[:8] + bytes(len(written) - 8))
    assert command(monkeypatch, "classify", data, "--steps", 1, "--out", run) == 2
    assert "labels of one class only" in capsys.readouterr().err
    assert not run.exists()


def test_a_picture_of_two_channels_is_refused_before_it_is_drawn(tmp_path, monkeypatch, capsys):
    data, run = write_folder(tmp_path / "mine", shape=(2, 4, 4)), tmp_path / "run"
    assert not command(monkeypatch, "fit", data, "--steps", 1, "--out", run)
    with monkeypatch.context() as patch:
        patch.setattr(TinyDensity, "sample", None)
        assert command(patch, "sample", run) == 2
    assert "one channel or three, and the images have 2: give an --out" in capsys.readouterr().err
    assert not command(monkeypatch, "sample", run, "--out", tmp_path / "samples.npy")


def test_classifier_is_trained_and_scored(data, tmp_path, monkeypatch, capsys):
    run, file = tmp_path / "run", tmp_path / "wrong.npy"
    assert not command(monkeypatch, "classify", data, "--epochs", 8, "--out", run)
    assert "% of 12 test images wrong" in capsys.readouterr().out
    assert not command(monkeypatch, "score", run, data, "--out", file)
    assert "% wrong" in capsys.readouterr().out
    wrong = np.load(file)
    _, model = load_run(run)
    assert wrong.mean() == evaluation.test_error(model, load_images(data).test)
    assert command(monkeypatch, "sample", run) == 2
    assert "no samples" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["fit", "classify"])
def test_photographs_are_moved_and_mirrored_as_the_studies_do(what, tmp_path, monkeypatch):
    seen = []
    batches = training.Batches

    def noted(images, size, seed, shift, flip):
        seen.append((shift, flip))
        return batches(images, size, seed, shift, flip)

    monkeypatch.setattr(training, "Batches", noted)
    for channels in (3, 1):
        data = write_folder(tmp_path / f"of {channels}", shape=(channels, 4, 4))
        arguments = (what, data, "--steps", 1, "--out", tmp_path / f"run of {channels}")
        for further in ((), ("--resume",)):
            assert not command(monkeypatch, *arguments, *further)
    ours = CLASSIFIER if what == "classify" else DENSITY
    assert seen == [(4, True)] * 2 + [(ours.shift, ours.flip)] * 2


def test_hybrid_scores_both_and_samples_a_class(data, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert not command(monkeypatch, "fit", data, "--hybrid", 1, "--steps", 60, "--out", run)
    assert not command(monkeypatch, "score", run, data)
    said = capsys.readouterr().out
    assert "bits/dim" in said
    assert "% wrong" in said
    files = [tmp_path / f"{label}.npy" for label in (0, 2)]
    for label, file in zip((0, 2), files, strict=True):
        arguments = ("sample", run, "--label", label, "-n", 50, "--out", file)
        assert not command(monkeypatch, *arguments)
    dark, bright = (np.load(file).mean() for file in files)
    assert dark < bright
    assert command(monkeypatch, "sample", run, "--label", 3) == 2
    assert "must be 0 to 2" in capsys.readouterr().err


def test_conditional_density_is_given_the_labels(data, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert not command(monkeypatch, "fit", data, "--conditional", "--steps", 20, "--out", run)
    made, model = load_run(run)
    assert made.conditional
    file = tmp_path / "nats.npy"
    assert not command(monkeypatch, "score", run, data, "--out", file)
    test = load_images(data).test
    assert (np.load(file) == evaluation.nats(model, test, conditional=True).numpy()).all()


def test_images_without_labels_are_fitted_and_scored(data, tmp_path, monkeypatch, capsys):
    plain, run = write_folder(tmp_path / "plain", labels=False), tmp_path / "run"
    for what in (["classify"], ["fit", "--conditional"], ["fit", "--hybrid", 1]):
        assert command(monkeypatch, what[0], plain, *what[1:], "--steps", 1, "--out", run) == 2
        assert "plain has no labels, which classify, --conditional" in capsys.readouterr().err
    assert not run.exists()

    assert not command(monkeypatch, "fit", plain, "--steps", 20, "--out", run)
    read = {}
    for folder in (plain, data):
        file = tmp_path / "nats.npy"
        assert not command(monkeypatch, "score", run, folder, "--out", file)
        read[folder] = np.load(file)
    assert (read[plain] == read[data]).all()
    assert command(monkeypatch, "sample", run, "--label", 0) == 2
    assert "trained without labels" in capsys.readouterr().err


def test_runs_that_need_labels_say_so_of_images_without(data, tmp_path, monkeypatch, capsys):
    plain = write_folder(tmp_path / "plain", labels=False)
    for name, what in (("one", ["classify"]), ("two", ["fit", "--conditional"])):
        arguments = (what[0], data, *what[1:], "--steps", 1, "--out", tmp_path / name)
        assert not command(monkeypatch, *arguments)
        assert command(monkeypatch, "score", tmp_path / name, plain) == 2
        assert "have no labels, which this run cannot be scored without" in capsys.readouterr().err

    hybrid = tmp_path / "hybrid"
    assert not command(monkeypatch, "fit", data, "--hybrid", 1, "--steps", 1, "--out", hybrid)
    capsys.readouterr()
    assert not command(monkeypatch, "score", hybrid, plain)
    said = capsys.readouterr().out
    assert "bits/dim" in said
    assert "wrong" not in said


def test_interrupted_fit_goes_on_to_the_bit(data, tmp_path, monkeypatch, capsys):
    step = steps.Training.training_step

    def interrupted(self, batch, index):
        if self.steps == 7:
            raise KeyboardInterrupt
        return step(self, batch, index)

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    arguments = ("fit", data, "--steps", 12, "--out")
    with monkeypatch.context() as patch:
        patch.setattr(steps.Training, "training_step", interrupted)
        assert command(patch, *arguments, tmp_path / "parts") == 130
    assert "--resume" in capsys.readouterr().out
    assert torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["steps"] == 7
    # A run that is not finished has the weights of its checkpoint, and says so.
    assert not command(monkeypatch, "score", tmp_path / "parts", data)
    assert "is not finished: these are the weights of" in capsys.readouterr().out

    assert not command(monkeypatch, *arguments, tmp_path / "parts", "--resume")
    assert not command(monkeypatch, *arguments, tmp_path / "whole")
    parts, whole = (load_run(tmp_path / name)[1].state_dict() for name in ("parts", "whole"))
    assert all(torch.equal(value, whole[name]) for name, value in parts.items())


def test_residual_blocks_of_normflows_are_read_and_resumed(data, tmp_path, monkeypatch):
    pytest.importorskip("normflows")

    def make(shape, classes):
        return residual(shape, 4, levels=1, depth=1)

    recipe = dataclasses.replace(DENSITY, make=make, after_step=update_normflows)
    monkeypatch.setitem(RECIPES["density"], "normflows-residual", recipe)
    run = tmp_path / "run"
    arguments = ("fit", data, "--model", "normflows-residual", "--steps", 2, "--out", run)
    assert not command(monkeypatch, *arguments)
    before = load_run(run)[1].state_dict()
    (run / "weights.pt").unlink()
    assert not command(monkeypatch, *arguments, "--resume")
    after = load_run(run)[1].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_other_settings_are_not_resumed(data, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert not command(monkeypatch, "classify", data, "--steps", 2, "--out", run)
    assert command(monkeypatch, "classify", data, "--steps", 3, "--out", run, "--resume") == 2
    assert "was begun with steps 2" in capsys.readouterr().err


def test_other_images_are_not_trained_on_under_the_same_name(data, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    arguments = ("fit", data, "--steps", 2, "--out", run)
    assert not command(monkeypatch, *arguments)
    path = data / "train-images-idx4-ubyte"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert command(monkeypatch, *arguments, "--resume") == 2
    assert "was begun with images" in capsys.readouterr().err
    path.write_bytes(whole)
    assert not command(monkeypatch, *arguments, "--resume")


def test_a_refused_sample_says_so_in_one_line(data, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert not command(monkeypatch, "fit", data, "--steps", 1, "--out", run)
    capsys.readouterr()
    assert command(monkeypatch, "sample", run, "--label", 1) == 2
    said = capsys.readouterr()
    assert not said.out
    assert len(said.err.splitlines()) == 1


def test_a_run_is_not_overwritten(data, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    assert not command(monkeypatch, "classify", data, "--steps", 2, "--out", run)
    kept = (run / "weights.pt").read_bytes()
    for again in ("classify", "fit"):
        assert command(monkeypatch, again, data, "--steps", 2, "--out", run) == 2
        assert "go on with it by --resume" in capsys.readouterr().err
    assert (run / "weights.pt").read_bytes() == kept


def test_a_refusal_leaves_a_folder_as_it_was(data, tmp_path, monkeypatch, capsys):
    class WithoutClasses(type(DENSITY.make((1, 4, 4), 3))):
        def log_prob(self, x, labels=None):
            raise ValueError("no labels.")

    recipe = dataclasses.replace(DENSITY, make=WithoutClasses)
    monkeypatch.setitem(RECIPES["density"], "i-resnet", recipe)
    (tmp_path / "old").mkdir()
    for name in ("old", "new"):
        arguments = ("fit", data, "--conditional", "--steps", 1, "--out", tmp_path / name)
        assert command(monkeypatch, *arguments) == 2
        assert "no labels. --conditional goes with --model i-resnet-classes" in (
            capsys.readouterr().err
        )
    assert not list((tmp_path / "old").iterdir())
    assert not (tmp_path / "new").exists()


def test_a_model_is_tried_out_where_it_is_trained(data, tmp_path, monkeypatch, capsys):
    seen = []

    class Seen(type(DENSITY.make((1, 4, 4), 3))):
        def log_prob(self, x, labels=None):
            seen.append((x.device.type, next(self.parameters()).device.type))
            raise ValueError("enough.")

    monkeypatch.setitem(RECIPES["density"], "i-resnet", dataclasses.replace(DENSITY, make=Seen))
    monkeypatch.setattr(training, "torch_device", lambda name: torch.device("meta"))
    assert command(monkeypatch, "fit", data, "--steps", 1, "--out", tmp_path / "run") == 2
    assert "enough." in capsys.readouterr().err
    assert seen == [("meta", "meta")]


DAMAGED = {
    "settings": ("settings.json", ("fit", "score", "sample")),
    "weights": ("weights.pt", ("score", "sample")),
    "checkpoint": ("last.ckpt", ("fit", "score", "sample")),
}


@pytest.mark.parametrize(("name", "commands"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("junk", [False, True], ids=["cut off", "junk"])
def test_a_damaged_file_is_named_in_one_line(
    name, commands, junk, data, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    assert not command(monkeypatch, "fit", data, "--steps", 1, "--out", run)
    if name == "last.ckpt":
        (run / "weights.pt").unlink()
    whole = (run / name).read_bytes()
    (run / name).write_bytes(b"garbage" if junk else whole[: len(whole) // 2])
    capsys.readouterr()
    uses = {
        "fit": ("fit", data, "--steps", 1, "--out", run, "--resume"),
        "score": ("score", run, data),
        "sample": ("sample", run),
    }
    for use in commands:
        assert command(monkeypatch, *uses[use]) == 2
        said = capsys.readouterr().err
        assert f"{run / name} is damaged" in said
        assert said.count("\n") == 1


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    data, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    assert not command(monkeypatch, "fit", data, "--steps", 1, "--out", run)
    capsys.readouterr()
    (tmp_path / "file").write_text("")
    for use, out in (("sample", "a.png"), ("score", "a.csv")):
        more = (data,) if use == "score" else ()
        assert command(monkeypatch, use, run, *more, "--out", tmp_path / "file" / out) == 2
        said = capsys.readouterr()
        assert "is a file, and a folder is needed" in said.err
        assert not said.out


def test_a_set_of_one_test_image_has_no_standard_error(tmp_path, monkeypatch, capsys):
    data = write_folder(tmp_path / "mine", test=1)
    assert not command(monkeypatch, "fit", data, "--steps", 1, "--out", tmp_path / "run")
    said = capsys.readouterr().out
    assert "1 step in " in said
    assert re.search(r"parameters\. \d+\.\d{4} bits/dim on 1 test image\.", said)
    assert not command(monkeypatch, "score", tmp_path / "run", data)
    assert re.search(r"\d{4} bits/dim \(1 test image\)", capsys.readouterr().out)


def test_loss_that_is_no_number_ends_with_one_line(data, tmp_path, monkeypatch, capsys):
    class Broken(type(DENSITY.make((1, 4, 4), 3))):
        def log_prob(self, x, labels=None):
            return math.nan * super().log_prob(x, labels)

    recipe = dataclasses.replace(DENSITY, make=Broken)
    monkeypatch.setitem(RECIPES["density"], "i-resnet", recipe)
    assert command(monkeypatch, "fit", data, "--steps", 3, "--out", tmp_path / "run") == 2
    assert "nan at step 0" in capsys.readouterr().err


BAD = {
    "unknown model": (["fit", "DATA", "--model", "i-resnt"], "did you mean 'i-resnet'"),
    "unknown scale": (["fit", "DATA", "--scale", "huge"], "quick, paper"),
    "unknown data": (["fit", "mnst"], "did you mean 'mnist'"),
    "vectors": (["fit", "digits"], "use compare"),
    "a file of vectors": (["classify", "some.csv"], "use compare"),
    "two budgets": (["fit", "DATA", "--steps", 3, "--epochs", 1], "--steps and --epochs"),
    "no epochs": (["classify", "DATA", "--epochs", 0], "at least 1"),
    "precision": (["fit", "DATA", "--precision", "8"], "32, bf16, 16"),
    "devices": (["fit", "DATA", "--devices", 0], "at least 1"),
    "nodes that nobody starts": (["fit", "DATA", "--nodes", 2], "torchrun"),
    "a negative seed": (["fit", "DATA", "--seed", -1], "--seed must be 0 to 4294967295"),
    "too large a seed": (["classify", "DATA", "--seed", 2**32], "4294967295"),
    "unknown device": (["classify", "DATA", "--device", "tpu"], "cpu"),
    "labels twice": (["fit", "DATA", "--conditional", "--hybrid", 1], "give one"),
    "negative weight": (["fit", "DATA", "--hybrid", -1], "from 0 on"),
    "nothing to resume": (["fit", "DATA", "--resume"], "leave out --resume"),
}


@pytest.mark.parametrize(("arguments", "advice"), BAD.values(), ids=BAD)
def test_bad_training_ends_with_one_line_and_code_2(
    arguments, advice, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    arguments = [data if value == "DATA" else value for value in arguments]
    assert command(monkeypatch, *arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert advice in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "settings.json").exists()


BAD_USE = {
    "no samples": (["sample", "RUN", "-n", 0], "at least 1"),
    "more samples than the disk holds": (["sample", "RUN", "-n", 10**15], "GB are needed"),
    "temperature": (["sample", "RUN", "--temperature", -1], "from 0 on"),
    "latents of no image": (["sample", "RUN", "--temperature", 1e300], "--temperature 1e+300:"),
    "label of a run without": (["sample", "RUN", "--label", 1], "without labels"),
    "a picture of another kind": (["sample", "RUN", "--out", "a.jpg"], ".png or .npy"),
    "no run": (["sample", "."], "holds no run"),
    "a negative seed of samples": (["sample", "RUN", "--seed", -1], "--seed must be 0"),
    "part": (["score", "RUN", "DATA", "--part", "rest"], "train, validation, test"),
    "scores of another kind": (["score", "RUN", "DATA", "--out", "a.txt"], ".csv or .npy"),
    "images of another shape": (["score", "RUN", "OTHER"], "trained on (1, 4, 4)"),
    "no images": (["score", "RUN", "EMPTY"], "no test images"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A density after one step."""
    folder = tmp_path_factory.mktemp("fitted")
    data = write_folder(folder / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "recipes", lambda kind, scale: RECIPES[kind])
        assert not command(patch, "fit", data, "--steps", 1, "--out", folder / "run")
    write_folder(folder / "other", shape=(1, 4, 6))
    write_folder(folder / "empty", test=0)
    return folder


@pytest.mark.parametrize(("arguments", "advice"), BAD_USE.values(), ids=BAD_USE)
def test_bad_use_of_a_run_ends_with_one_line_and_code_2(
    arguments, advice, run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": "run", "DATA": "mine", "OTHER": "other", "EMPTY": "empty"}
    arguments = [run / places[v] if v in places else v for v in arguments]
    assert command(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert advice in said
    assert len(said.strip().splitlines()) == 1


def test_pictures_stand_side_by_side():
    pixels = torch.arange(1, 4, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 2, 2)
    assert grid(pixels)[:, :, 0].tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 2, 2, 0],
        [0, 1, 1, 0, 2, 2, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [0, 3, 3, 0, 0, 0, 0],
        [0, 3, 3, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]


def test_recipes_are_found_by_name():
    assert recipe("density", "i-resnet", "quick") is DENSITY
    assert recipe("classifier", "i-resnet", "paper") is CLASSIFIER
    with pytest.raises(UsageError, match="did you mean 'i-resnet'"):
        recipe("classifier", "i-revnet", "quick")
    with pytest.raises(UsageError, match="--scale"):
        recipe("density", "i-resnet", "small")


@pytest.fixture
def studied(monkeypatch):
    """The settings that a study of table 2 was called with."""
    asked = []
    module = types.ModuleType("table2")
    module.study = asked.append
    monkeypatch.setitem(sys.modules, "iresnet_flows.experiments.paper.table2", module)
    return asked


def test_study_is_given_what_was_asked_for(studied, tmp_path, monkeypatch):
    arguments = ("--models", "a,b", "--minutes", 2, "--seed", 4, "--seed", 5, "--jobs", 1)
    out = tmp_path / "out"
    assert not command(monkeypatch, "reproduce", "table2", *arguments, "--out", out)
    (settings,) = studied
    assert dataclasses.replace(settings, command="") == Settings(
        "quick", 2.0, ("a", "b"), (4, 5), None, out, resume=False, jobs=1, command=""
    )
    assert settings.command.startswith("iresnet-flows reproduce table2")
    assert out.is_dir()


BAD_STUDY = {
    "unknown study": (["table5"], "did you mean 'table4'"),
    "scale": (["table2", "--scale", "large"], "quick, paper"),
    "targets": (["table2", "--targets", "two_moons"], "belongs to posteriors"),
    "data": (["table2", "--data", "mnist"], "belongs to table4 and fig5"),
    "jobs": (["table2", "--jobs", 0], "at least 1"),
    "minutes": (["table2", "--minutes", 0], "positive"),
}


@pytest.mark.parametrize(("arguments", "advice"), BAD_STUDY.values(), ids=BAD_STUDY)
def test_bad_study_ends_with_one_line_and_code_2(
    arguments, advice, studied, tmp_path, monkeypatch, capsys
):
    assert command(monkeypatch, "reproduce", *arguments, "--out", tmp_path) == 2
    assert advice in capsys.readouterr().err
    assert not studied
