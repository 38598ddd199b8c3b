"""The contenders: each is the flow that its recipe says, in the size that is asked for."""

import copy
import math
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

pytest.importorskip("nflows")
pytest.importorskip("rich")

from iresnet_flows.errors import UnmatchedContender, UsageError
from iresnet_flows.experiments.comparison import costs
from iresnet_flows.experiments.comparison.contenders import (
    CONTENDERS,
    PAPER,
    build,
    chosen,
    matching,
    stopwatch,
    width_of,
)
from iresnet_flows.experiments.comparison.contenders.couplings import nice
from iresnet_flows.experiments.comparison.probes import takes_context
from iresnet_flows.experiments.comparison.properties import is_tolerant
from iresnet_flows.experiments.quietness import quiet
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.nflows import Flow, LayerTransform, StandardNormal

ODE = ("ffjord", "cnf")
DRAWS = 300


def missing(contender):
    return contender.requires is not None and find_spec(contender.requires) is None


def stochastic(name, features):
    return name == "residual-flow" or (name == "normflows-residual" and features != 2)


def size(flow):
    return sum(p.numel() for p in flow.parameters() if p.requires_grad)


@pytest.fixture(params=CONTENDERS)
def contender(request):
    found = CONTENDERS[request.param]
    if missing(found):
        pytest.skip(f"{found.requires} is not installed")
    return found


@pytest.fixture(params=(2, 5))
def features(request):
    return request.param


def stepped(contender, features):
    """A flow after one step of its optimiser, and the loss before."""
    torch.manual_seed(0)
    flow = build(contender, features, "none")
    optimiser = torch.optim.AdamW(flow.parameters(), lr=contender.learning_rate)
    loss = -flow.log_prob(torch.randn(64, features)).mean()
    loss.backward()
    optimiser.step()
    if contender.after_step is not None:
        contender.after_step(flow)
    return flow, loss


def dense_log_det(flow, x):
    x = x.clone().requires_grad_()
    y, _ = flow._transform(x)
    rows = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(x.shape[1])]
    return y.detach(), torch.linalg.slogdet(torch.stack(rows, 1)).logabsdet


def test_log_prob_is_that_of_the_change_of_variables(contender, features):
    with quiet():
        flow = stepped(contender, features)[0].double().eval()
        for integrator in filter(is_tolerant, flow.modules()):  # 1e-4 alone may take up the bound
            integrator.atol = integrator.rtol = 1e-6
        x = torch.randn(4, features, dtype=torch.float64)
        noise, log_det = dense_log_det(flow, x)
        expected = flow._distribution.log_prob(noise) + log_det
        with torch.no_grad():
            if not stochastic(contender.name, features):
                atol = 1e-3 if contender.name in ODE else 1e-6
                assert torch.allclose(flow.log_prob(x), expected, rtol=0, atol=atol)
                return
            draws = torch.stack([flow.log_prob(x) for _ in range(DRAWS)])
    error = draws.std(0) / math.sqrt(DRAWS)
    assert ((draws.mean(0) - expected).abs() < 5 * error + 1e-6).all()


def test_a_step_of_the_optimiser_changes_it(contender, features):
    with quiet():
        torch.manual_seed(0)
        before = copy.deepcopy(build(contender, features, "none").state_dict())
        flow, loss = stepped(contender, features)
    assert math.isfinite(float(loss.detach()))
    after = dict(flow.named_parameters())
    assert any(not torch.equal(before[name], p) for name, p in after.items())
    assert all(torch.isfinite(p).all() for p in after.values())


def test_samples_have_the_shape_of_rows(contender, features):
    with quiet():
        flow = stepped(contender, features)[0].eval()
        with torch.no_grad():
            assert flow.sample(3).shape == (3, features)


@pytest.mark.parametrize("d", [2, 5, 30, 64])
def test_parameters_are_those_of_i_resnet(contender, d):
    target = size(CONTENDERS["i-resnet"].make(d, 32))
    with quiet():
        assert abs(size(build(contender, d)) - target) <= 0.1 * target


def test_inverse_restores_what_is_invertible(contender, features):
    if not contender.density:
        pytest.skip("nothing says that it is invertible")
    with quiet():
        flow = stepped(contender, features)[0].eval()
        x = torch.randn(16, features)
        with torch.no_grad():
            noise, log_det = flow._transform(x)
            restored, minus = flow._transform.inverse(noise)
    assert torch.allclose(restored, x, atol=1e-2)
    if not stochastic(contender.name, features):
        assert torch.allclose(minus, -log_det, atol=2e-2)


def test_resnet_is_tried_and_need_not_come_back():
    flow = CONTENDERS["resnet"].make(2, 32).eval()
    with torch.no_grad():
        x = torch.randn(16, 2)
        for p in flow.parameters():
            p.mul_(0.3 if p.dim() == 2 else 1)
        assert torch.allclose(flow._transform.inverse(flow._transform(x)[0])[0], x, atol=1e-4)
        for p in flow.parameters():
            p.mul_(20 if p.dim() == 2 else 1)
        restored, log_det = flow._transform.inverse(flow._transform(x)[0])
    assert (restored - x).abs().max() > 0.1
    assert log_det.shape == (16,)
    assert not CONTENDERS["resnet"].density and "no likelihood" in CONTENDERS["resnet"].remark


WITHOUT_CONTEXT = ("resnet", "normflows-residual", "flowcon")


def test_a_context_is_taken_where_the_recipe_has_one(contender, features):
    with quiet():
        taken = takes_context(contender, features, contender.width or 0)
    assert taken == (contender.name not in WITHOUT_CONTEXT)


def test_a_context_that_changes_nothing_is_not_taken():
    def deaf(features, width, context_features=None):
        return Flow(LayerTransform(ElementwiseAffine(features)), StandardNormal([features]))

    assert not takes_context(replace(CONTENDERS["nice"], make=deaf), 5, 8)


def test_arithmetic_is_counted_through_gradients_of_leaves():
    x = torch.randn(4, 3, requires_grad=True)
    with costs.Operations() as operations:
        torch.autograd.grad((x @ torch.ones(3, 2)).sum(), x)
    assert operations.count == 2 * 2 * 4 * 3 * 2


def test_i_revnet_keeps_every_volume_and_nice_does_not():
    x = torch.randn(8, 5)
    for name, kept in (("i-revnet", True), ("nice", False)):
        flow = build(CONTENDERS[name], 5)
        with torch.no_grad():
            for p in flow.parameters():
                p.add_(0.1)
            log_det = flow._transform(x)[1]
        assert bool((log_det == 0).all()) == kept


def test_nine_of_the_paper_are_compared_by_default():
    assert [c.name for c in chosen(None)] == list(PAPER)
    assert len(PAPER) == 9
    assert all((c.origin == "paper") == (name in PAPER) for name, c in CONTENDERS.items())
    assert [c.name for c in chosen(["nsf", "maf", "nsf"])] == ["nsf", "maf"]


def test_missing_package_is_named_with_what_brings_it(monkeypatch):
    monkeypatch.setitem(CONTENDERS, "nsf", replace(CONTENDERS["nsf"], requires="no_such_thing"))
    with pytest.raises(UsageError, match="pip install no_such_thing, or leave nsf out") as caught:
        chosen(["nsf"])
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="needs no_such_thing"):
        width_of(CONTENDERS["nsf"], 2)


def test_a_family_that_cannot_be_matched_says_by_how_much():
    stiff = replace(CONTENDERS["nice"], name="stiff", make=lambda features, _: nice(features, 2))
    with pytest.warns(UnmatchedContender, match="NICE cannot be matched: .* i-ResNet has 18760"):
        width_of(stiff, 2)


def test_width_is_its_own_where_nothing_is_matched():
    assert width_of(CONTENDERS["maf"], 2, "none") == CONTENDERS["maf"].width
    alone = replace(CONTENDERS["maf"], width=None, make=lambda features, _: nice(features, 2))
    assert width_of(alone, 2, "none") is None


def test_a_flow_without_a_width_is_measured_all_the_same_each_time():
    alone = replace(CONTENDERS["maf"], width=None, make=lambda features, _: nice(features, 2))
    for _ in range(2):
        with pytest.warns(
            UnmatchedContender, match="MAF cannot be matched: 252 parameters, where"
        ):
            assert width_of(alone, 2) is None


def test_the_digest_of_a_contender_follows_what_a_run_depends_on():
    maf = CONTENDERS["maf"]
    others = [maf.digest(7), replace(maf, learning_rate=1.0).digest(8)]
    others += [replace(maf, weight_decay=0.1).digest(8), replace(maf, recipe="another").digest(8)]
    assert maf.digest(8) == replace(maf).digest(8)
    assert len({maf.digest(8), *others}) == 5


@pytest.fixture
def clock(monkeypatch):
    """Steps that take as long as there are parameters; counts the flows that are measured."""
    measured = []

    def seconds(flow, features):
        measured.append(size(flow))
        return size(flow) / 1000

    monkeypatch.setattr(stopwatch, "step_seconds", seconds)
    monkeypatch.setattr(matching, "step_seconds", seconds)
    for cached in (matching.matched_time, matching.time_of_yardstick):
        cached.cache_clear()
    yield measured
    for cached in (matching.matched_time, matching.time_of_yardstick):
        cached.cache_clear()


def test_width_in_time_is_the_nearest_of_the_grid_and_is_measured_once(clock):
    made = CONTENDERS["made"]
    width = width_of(made, 2, "time")
    times = {w: abs(size(made.make(2, w)) - clock[0]) for w in stopwatch.WIDTHS}
    assert width == min(times, key=times.get)
    assert len(clock) < len(stopwatch.WIDTHS)
    count = len(clock)
    assert width_of(made, 2, "time") == width
    assert len(clock) == count
    assert width_of(CONTENDERS["i-resnet"], 2, "time") == 32


def test_time_of_a_step_is_measured():
    with quiet():
        assert 0 < stopwatch.step_seconds(build(CONTENDERS["made"], 2), 2) < 1
