"""Training on images: what is learned, and that it goes on to the bit."""

from __future__ import annotations

import csv
import dataclasses
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

np = pytest.importorskip("numpy")
pytest.importorskip("lightning")
pytest.importorskip("nflows")

from image_cases import CLASSIFIER, DENSITY, TinyDensity, image_set, sgd

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.budgets import Budget, Diverged
from iresnet_flows.experiments.images import evaluation, training
from iresnet_flows.experiments.images.clocks import Clock
from iresnet_flows.experiments.images.steps import Training
from iresnet_flows.experiments.images.tasks import Classification, Hybrid, Likelihood
from iresnet_flows.experiments.images.training import Machine, epochs, train

TASKS = {
    "density": (DENSITY, Likelihood()),
    "conditional density": (DENSITY, Likelihood(conditional=True)),
    "hybrid": (DENSITY, Hybrid(weight=0.5)),
    "classifier": (CLASSIFIER, Classification()),
    "averaged classifier": (dataclasses.replace(CLASSIFIER, average=0.9), Classification()),
}
every_task = pytest.mark.parametrize(("recipe", "task"), TASKS.values(), ids=TASKS)


def checkpoint(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def log(folder):
    return list(csv.DictReader((folder / "log.csv").read_text().splitlines()))


def equal(a, b):
    """Whether two trees of tensors and numbers are the same to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def assert_same_state(one, other):
    one, other = checkpoint(one), checkpoint(other)
    assert one["steps"] == other["steps"]
    assert equal(one["state_dict"], other["state_dict"])
    assert equal(one["optimizer_states"], other["optimizer_states"])


class Stop(Exception):
    """What cuts a training off."""


def stop_at(step):
    def progress(spent, loss):
        progress.steps += 1
        if progress.steps == step:
            raise Stop

    progress.steps = 0
    return progress


@every_task
def test_training_that_was_stopped_goes_on_to_the_bit(recipe, task, tmp_path):
    data, budget = image_set(), Budget(steps=6)
    whole = train(recipe, task, data, tmp_path / "whole", budget, checkpoint_steps=3)

    with pytest.raises(Stop):
        train(
            *(recipe, task, data, tmp_path / "parts", budget),
            progress=stop_at(5),
            checkpoint_steps=3,
        )
    assert checkpoint(tmp_path / "parts")["steps"] == 3
    parts = train(recipe, task, data, tmp_path / "parts", budget, resume=True)

    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    assert equal(whole.model.state_dict(), parts.model.state_dict())
    assert whole.steps == parts.steps == 6


class Drawing(TinyDensity):
    """It draws from NumPy, as normflows' residual blocks do."""

    def log_prob(self, x, labels=None):
        return super().log_prob(x, labels) * (1 + 0.1 * np.random.rand())


def test_draws_of_numpy_are_those_of_the_seed_too(tmp_path):
    recipe = dataclasses.replace(DENSITY, make=Drawing)
    for name in ("one", "other"):
        train(recipe, Likelihood(), image_set(), tmp_path / name, Budget(steps=3))
    assert_same_state(tmp_path / "one", tmp_path / "other")


@pytest.fixture
def at_a_terminal():
    """Python's own Ctrl-C; what a shell starts in the background ignores it."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("at_a_terminal")
def test_ctrl_c_keeps_every_step_that_was_taken(tmp_path):
    def interrupt(spent, loss):
        if spent == 0.5:
            signal.raise_signal(signal.SIGINT)

    arguments = DENSITY, Likelihood(), image_set()
    with pytest.raises(KeyboardInterrupt):
        train(*arguments, tmp_path / "parts", Budget(steps=6), progress=interrupt)
    assert checkpoint(tmp_path / "parts")["steps"] == 4  # that which was under way is ended
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    train(*arguments, tmp_path / "parts", Budget(steps=6), resume=True)
    train(*arguments, tmp_path / "whole", Budget(steps=6))
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.usefixtures("at_a_terminal")
@pytest.mark.parametrize("step", [3, 5])
def test_ctrl_c_at_any_line_of_a_step_keeps_it_or_the_next(step, tmp_path, monkeypatch):
    is_due = Clock.is_due

    def interrupted(self, training):
        if training.steps == step:
            signal.raise_signal(signal.SIGINT)
        return is_due(self, training)

    monkeypatch.setattr(Clock, "is_due", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(DENSITY, Likelihood(), image_set(), tmp_path, Budget(steps=6))
    assert checkpoint(tmp_path)["steps"] == step + 1


@pytest.mark.usefixtures("at_a_terminal")
def test_ctrl_c_after_the_last_step_is_not_lost(tmp_path):
    def interrupt(spent, loss):
        if spent == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(DENSITY, Likelihood(), image_set(), tmp_path, Budget(steps=3), progress=interrupt)
    assert checkpoint(tmp_path)["steps"] == 3


@pytest.mark.usefixtures("at_a_terminal")
def test_a_second_ctrl_c_ends_a_training_at_once(tmp_path):
    def interrupt(spent, loss):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(DENSITY, Likelihood(), image_set(), tmp_path, Budget(steps=6), progress=interrupt)
    assert not (tmp_path / "last.ckpt").exists()


def test_finished_training_is_read_and_not_continued(tmp_path):
    first = train(DENSITY, Likelihood(), image_set(), tmp_path, Budget(steps=4))
    before = (tmp_path / "last.ckpt").read_bytes()
    again = train(DENSITY, Likelihood(), image_set(), tmp_path, Budget(steps=4), resume=True)
    assert equal(first.model.state_dict(), again.model.state_dict())
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_training_that_was_begun_anew_does_not_read_what_is_there(tmp_path):
    for _ in range(2):
        trained = train(CLASSIFIER, Classification(), image_set(), tmp_path, Budget(steps=4))
        assert trained.steps == 4
    assert [int(row["step"]) for row in log(tmp_path)] == [1, 4]


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from image_cases import DENSITY, image_set
from iresnet_flows.experiments.images.tasks import Likelihood
from iresnet_flows.experiments.images.training import train
from iresnet_flows.experiments.budgets import Budget
folder, budget = Path({folder!r}), Budget(steps=10**6)
train(DENSITY, Likelihood(), image_set(), folder, budget, checkpoint_steps=1)
"""


def test_killed_training_leaves_a_whole_checkpoint_that_goes_on_to_the_bit(tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parents[2]), folder=str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-c", code])
    last = tmp_path / "killed" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    done = checkpoint(tmp_path / "killed")["steps"]
    assert done >= 1
    budget = Budget(steps=10**6)
    for folder, resume in (("killed", True), ("whole", False)):
        steps = 2 if resume else done + 2
        with pytest.raises(Stop):
            train(
                *(DENSITY, Likelihood(), image_set(), tmp_path / folder, budget),
                resume=resume,
                progress=stop_at(steps),
                checkpoint_steps=1,
            )
    assert checkpoint(tmp_path / "whole")["steps"] == done + 2
    assert_same_state(tmp_path / "whole", tmp_path / "killed")


def test_a_model_is_measured_where_it_was_trained(tmp_path, monkeypatch):
    where = {"it is": "cpu"}
    monkeypatch.setattr(training, "torch_device", lambda name: torch.device(where["it is"]))
    trained = train(
        *(DENSITY, Likelihood(), image_set(), tmp_path, Budget(steps=1)),
        progress=lambda spent, loss: where.update({"it is": "meta"}),
    )
    assert {value.device.type for value in trained.model.state_dict().values()} == {"meta"}
    kept = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert {value.device.type for value in kept.values()} == {"cpu"}


def test_each_process_of_a_node_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(training, "torch_device", torch.device)
    monkeypatch.setattr(training.rank_zero_only, "rank", 5, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert Machine("cuda", devices=4, nodes=2).place == torch.device("cuda", 1)
    assert Machine("cpu").place == torch.device("cpu")


def test_training_leaves_the_random_state_of_the_caller_alone(tmp_path):
    before = torch.random.get_rng_state()
    trained = train(DENSITY, Likelihood(), image_set(), tmp_path, Budget(steps=2))
    evaluation.bits_per_dim(trained.model, image_set().test)
    assert torch.equal(before, torch.random.get_rng_state())


def test_seed_governs_weights_and_noise(tmp_path):
    states = [
        train(
            *(DENSITY, Likelihood(), image_set(), tmp_path / str(index), Budget(steps=2)),
            seed=seed,
        ).model.state_dict()
        for index, seed in enumerate((0, 0, 1))
    ]
    assert equal(states[0], states[1])
    assert not equal(states[0], states[2])


def test_loss_that_is_no_number_ends_the_run_with_its_step(tmp_path):
    class Broken(TinyDensity):
        calls = 0

        def log_prob(self, x, labels=None):
            self.calls += 1
            return super().log_prob(x, labels) * (math.nan if self.calls == 3 else 1.0)

    recipe = dataclasses.replace(DENSITY, make=Broken)
    with pytest.raises(Diverged, match="nan at step 2"):
        train(recipe, Likelihood(), image_set(), tmp_path, Budget(steps=6))


def rates(recipe, folder, monkeypatch, budget):
    found = []
    finish = Training.finish_step

    def noted(self):
        found.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        finish(self)

    monkeypatch.setattr(Training, "finish_step", noted)
    train(recipe, Classification(), image_set(), folder, budget)
    return found


def test_rate_rises_over_the_warmup_to_that_of_the_recipe_and_no_further(tmp_path, monkeypatch):
    recipe = dataclasses.replace(CLASSIFIER, warmup=4, schedule=lambda spent: 1.0)
    found = rates(recipe, tmp_path, monkeypatch, Budget(steps=6))
    assert found == pytest.approx([0.05 * factor for factor in (0.25, 0.5, 0.75, 1, 1, 1)])


def test_rate_follows_the_schedule_over_the_budget(tmp_path, monkeypatch):
    recipe = dataclasses.replace(CLASSIFIER, warmup=0, schedule=lambda spent: 1 - spent)
    found = rates(recipe, tmp_path, monkeypatch, Budget(steps=4))
    assert found == pytest.approx([0.05 * factor for factor in (1, 0.75, 0.5, 0.25)])


def test_budget_of_epochs_is_one_of_whole_batches():
    data = image_set()
    assert len(data.train) == 36
    assert epochs(3, CLASSIFIER, data) == Budget(steps=12)


def test_budget_of_minutes_ends_the_training(tmp_path):
    trained = train(CLASSIFIER, Classification(), image_set(), tmp_path, Budget(minutes=0.01))
    assert trained.seconds >= 0.6
    assert trained.steps > 1


def test_average_is_that_of_the_weights_after_each_step(tmp_path, monkeypatch):
    recipe = dataclasses.replace(CLASSIFIER, average=0.3, warmup=0)
    seen = []
    finish = Training.finish_step

    def noted(self):
        finish(self)
        seen.append({k: v.clone() for k, v in self.model.state_dict().items()})

    monkeypatch.setattr(Training, "finish_step", noted)
    trained = train(recipe, Classification(), image_set(), tmp_path, Budget(steps=5))

    mean = seen[0]["layers.0.weight"].double()
    for count, state in enumerate(seen[1:], start=1):
        decay = min(0.3, (1 + count) / (10 + count))
        mean = decay * mean + (1 - decay) * state["layers.0.weight"]
    found = trained.model.state_dict()
    torch.testing.assert_close(found["layers.0.weight"].double(), mean, atol=1e-6, rtol=1e-5)
    assert torch.equal(found["layers.1.running_mean"], seen[-1]["layers.1.running_mean"])


def test_what_a_library_asks_for_after_a_step_is_done_after_each(tmp_path):
    norms = []

    def halve(model):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
        norms.append(max(float(p.detach().norm()) for p in model.parameters()))

    recipe = dataclasses.replace(CLASSIFIER, average=None, after_step=halve)
    run = train(recipe, Classification(), image_set(), tmp_path, Budget(steps=3), seed=0)
    assert len(norms) == 3
    assert max(float(p.detach().norm()) for p in run.model.parameters()) == norms[-1]


def test_clipping_bounds_the_step(tmp_path):
    recipe = dataclasses.replace(
        CLASSIFIER,
        clip=1e-3,
        warmup=0,
        optimiser=lambda parameters: torch.optim.SGD(parameters, 1.0),
    )
    data = image_set()
    trained = train(recipe, Classification(), data, tmp_path / "1", Budget(steps=1))
    begin = train(
        dataclasses.replace(recipe, schedule=lambda spent: 0.0),
        *(Classification(), data, tmp_path / "0", Budget(steps=1)),
    )
    moved = torch.cat(
        [
            (a - b).flatten()
            for a, b in zip(trained.model.parameters(), begin.model.parameters(), strict=True)
        ]
    )
    assert float(moved.detach().norm()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_classes_that_brightness_tells_are_learned(precision, tmp_path):
    data = image_set(count=120)
    recipe = dataclasses.replace(CLASSIFIER, optimiser=sgd)
    machine = Machine(precision=precision)
    trained = train(recipe, Classification(), data, tmp_path, Budget(steps=60), machine=machine)
    assert evaluation.test_error(trained.model, data.test) <= 0.1
    assert {p.dtype for p in trained.model.parameters()} == {torch.float32}


def test_density_is_learned_in_mixed_precision_within_its_bound(tmp_path):
    trained = train(
        *(DENSITY, Likelihood(), image_set(), tmp_path, Budget(steps=30)),
        machine=Machine(precision="bf16"),
    )
    (block,) = [m for m in trained.model.flow.layers if hasattr(m, "branch")]
    assert float(block.branch.lipschitz_bound()) <= 0.7
    mean, error = evaluation.bits_per_dim(trained.model, image_set().test)
    assert mean < 8
    assert 0 < error < 1


def test_hybrid_learns_both(tmp_path):
    data = image_set(count=120)
    trained = train(DENSITY, Hybrid(weight=1.0), data, tmp_path, Budget(steps=80))
    assert evaluation.test_error(trained.model, data.test) <= 0.1
    assert evaluation.bits_per_dim(trained.model, data.test)[0] < 8


def test_log_holds_losses_and_rates(tmp_path):
    train(DENSITY, Hybrid(), image_set(), tmp_path, Budget(steps=12))
    rows = log(tmp_path)
    assert [int(row["step"]) for row in rows] == [1, 11, 12]
    wanted = {"seconds", "learning_rate", "loss", "bits_per_dim", "cross_entropy", "error"}
    assert wanted < rows[0].keys()


def test_training_needs_no_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(CLASSIFIER, Classification(), image_set(), tmp_path, Budget(steps=1))
    assert not (tmp_path / "tensorboard").exists()
    assert (tmp_path / "log.csv").exists()


def test_events_are_written_where_tensorboard_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    train(CLASSIFIER, Classification(), image_set(), tmp_path, Budget(steps=1))
    assert list((tmp_path / "tensorboard").iterdir())


BAD = {
    "precision": ({"precision": "8"}, "32, bf16, 16"),
    "half precision on the CPU": ({"precision": "16"}, "use bf16 or 32"),
    "half precision where there is no GPU": ({"device": "auto", "precision": "16"}, "bf16 or 32"),
    "devices": ({"devices": 0}, "at least 1"),
    "nodes": ({"nodes": -1}, "at least 1"),
}


@pytest.mark.parametrize(("arguments", "advice"), BAD.values(), ids=BAD)
def test_impossible_machine_is_refused_with_advice(arguments, advice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=advice):
        Machine(**arguments)


def test_as_many_processes_as_devices_are_asked_of_torchrun(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Machine(devices=2, nodes=2).ranks == 4
    for devices in (1, 2):
        said = f"torchrun started 4 processes, and --devices times --nodes is {devices}: make"
        with pytest.raises(UsageError, match=said):
            Machine(devices=devices)


def test_batch_that_devices_cannot_share_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be shared by 3"):
        train(
            *(CLASSIFIER, Classification(), image_set(), tmp_path, Budget(steps=1)),
            machine=Machine(devices=3),
        )
