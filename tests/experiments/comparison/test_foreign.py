"""Contenders of a user: every kind of object has the density that it has in its own host."""

import pickle
from importlib.metadata import EntryPoint

import pytest
import torch

pytest.importorskip("nflows")
pytest.importorskip("rich")

import foreign_cases

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.comparison.contenders import build, chosen, foreign, width_of
from iresnet_flows.experiments.comparison.contenders.foreign import from_spec
from iresnet_flows.experiments.comparison.contenders.guests import as_flow
from iresnet_flows.experiments.quietness import quiet

D = 3
KINDS = {
    "nflows_flow": "nflows",
    "nflows_transform": "nflows",
    "normflows_flow": "normflows",
    "normflows_layer": "normflows",
    "zuko_flow": "zuko",
    "zuko_transform": "zuko",
    "pyro_list": "pyro",
    "pyro_transform": "pyro",
    "torch_distribution": "pyro",
    "owner": "pyro",
    "layer": "nflows",
}
WIDTHS = {"nflows_flow": 16, "zuko_flow": 64, "layer": 16}


def spec(name):
    return f"foreign_cases:{name}"


def standard(z):
    return torch.distributions.Normal(0, 1).log_prob(z).sum(-1)


def own_density(name, found, x):
    """The log-density of rows as the host itself computes it."""
    match name:
        case "nflows_flow" | "normflows_flow":
            return found.log_prob(x)
        case "zuko_flow":
            return found().log_prob(x)
        case "torch_distribution":
            return found.log_prob(x)
        case "owner":
            found = torch.distributions.TransformedDistribution(
                found.base_dist, list(found.transforms)
            )
            return found.log_prob(x)
        case "pyro_list" | "pyro_transform":
            steps = found if isinstance(found, list) else [found]
            base = torch.distributions.Independent(
                torch.distributions.Normal(torch.zeros(D), 1.0), 1
            )
            return torch.distributions.TransformedDistribution(base, steps).log_prob(x)
        case "zuko_transform":
            z, ladj = found().call_and_ladj(x)
        case "normflows_layer":
            z, ladj = found.inverse(x)
        case _:
            z, ladj = found(x)
    return standard(z) + ladj


@pytest.fixture(params=KINDS)
def kind(request):
    pytest.importorskip(KINDS[request.param])
    return request.param


def made(name):
    torch.manual_seed(0)
    width = (WIDTHS[name],) if name in WIDTHS else ()
    with quiet():
        found = getattr(foreign_cases, name)(D, *width)
    return found, as_flow(found, D)


def test_density_is_that_of_its_own_host(kind):
    found, flow = made(kind)
    x = torch.randn(7, D)
    with quiet():
        assert torch.allclose(flow.log_prob(x), own_density(kind, found, x), atol=1e-5)


def test_every_parameter_is_trained_and_followed(kind):
    found, flow = made(kind)
    parameters = dict(flow.named_parameters())
    x = torch.randn(7, D)
    for _ in range(2):
        with quiet():
            (-flow.log_prob(x).mean()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters.values())

    before = flow.log_prob(x)
    with torch.no_grad():
        for p in parameters.values():
            p.add_(0.05)
    with quiet():
        assert torch.allclose(flow.log_prob(x), own_density(kind, found, x), atol=1e-4)
    assert not torch.allclose(flow.log_prob(x), before)


def test_samples_and_copies_are_those_of_the_flow(kind):
    contender = pickle.loads(pickle.dumps(from_spec(spec(kind))))
    assert contender.origin == "yours"
    assert contender.width == WIDTHS.get(kind)
    with quiet():
        flow = build(contender, D, "none")
        other = build(contender, D, "none")
        other.load_state_dict(flow.state_dict())
        assert flow.sample(5).shape == (5, D)
        x = torch.randn(4, D)
        assert torch.allclose(other.eval().log_prob(x), flow.eval().log_prob(x), atol=1e-6)
        double = flow.double().log_prob(x.double())
    assert torch.allclose(double.float(), other.log_prob(x), atol=1e-4)


def test_trainable_base_of_torch_is_a_parameter():
    pytest.importorskip("pyro")
    _, flow = made("torch_distribution")
    x = torch.randn(7, D)
    (-flow.log_prob(x).mean()).backward()
    (grad,) = [p.grad for _, p in flow._distribution.named_parameters()]
    assert grad.shape == (D,) and grad.abs().sum() > 0


def test_a_width_is_matched_and_a_contender_keeps_its_rate():
    contender = from_spec(spec("layer"))
    size = sum(p.numel() for p in build(chosen(["i-resnet"])[0], 5).parameters())
    width = width_of(from_spec(spec("zuko_flow")), 5)
    found = build(from_spec(spec("zuko_flow")), 5)
    assert abs(sum(p.numel() for p in found.parameters()) - size) < 0.1 * size
    assert width > 16
    assert contender.title == spec("layer") and contender.name == "foreign_cases:layer"
    assert from_spec(spec("TUNED")).learning_rate == 0.01
    assert build(from_spec(spec("TUNED")), 2, "none").sample(3).shape == (3, 2)
    assert from_spec(spec("nflows_flow")).recipe.startswith("One masked layer")


def test_foreign_ones_come_last_and_registered_ones_are_known_by_name(monkeypatch):
    entry = EntryPoint("mine", spec("layer"), foreign.GROUP)
    monkeypatch.setattr(foreign, "entry_points", lambda group: [entry])
    names = [c.name for c in chosen(["mine", "nice"], [spec("nflows_flow")])]
    assert names == ["mine", "nice", "foreign_cases:nflows_flow"]
    with pytest.raises(UsageError, match="did you mean 'mine'"):
        chosen(["mien"])


BAD = {
    "no colon": ("foreign_cases", "name it as package.module:factory"),
    "no module": ("foreign_casez:layer", "foreign_casez cannot be imported: ModuleNotFoundError"),
    "no attribute": ("foreign_cases:layers", "foreign_cases has no layers"),
    "not callable": ("foreign_cases:NOT_A_FACTORY", "a int cannot be called"),
    "raises": ("foreign_cases:broken", r"broken\(3\) fails: RuntimeError: no luck"),
    "unknown": ("foreign_cases:unknown", "it is a dict: return an nflows Flow"),
    "features": ("foreign_cases:unknown_features", "has no unknown_features"),
    "three": ("foreign_cases:of_three", "cannot score rows of 4 features"),
    "fixed": ("foreign_cases:fixed", "without trainable parameters"),
    "mixed": ("foreign_cases:mixed", "bring them into one host"),
    "stale": ("foreign_cases:stale_base", "was computed from parameters when it was built"),
}


@pytest.mark.parametrize(("name", "advice"), BAD.values(), ids=BAD)
def test_what_cannot_be_compared_is_refused_in_one_line(name, advice):
    with pytest.raises(UsageError, match=advice) as caught, quiet():
        build(from_spec(name), 4 if "three" in name else D)
    assert "\n" not in str(caught.value)


def test_factories_beside_the_working_directory_are_found(tmp_path, monkeypatch):
    (tmp_path / "beside_me.py").write_text("from foreign_cases import layer as mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p])
    assert from_spec("beside_me:mine").name == "beside_me:mine"
