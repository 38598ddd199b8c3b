"""Any host's transform in any other: value, log-det, inverse, context, parameters."""

from __future__ import annotations

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from guests import (
    BRIDGES,
    CASES,
    WAYS,
    Density,
    glow_block,
    nf,
    nt,
    pt,
    to_data,
    to_noise,
    tt,
    zuko,
)
from torch import nn

from iresnet_flows import InvertibleResidualBlock, LipschitzConvNet, LipschitzMLP
from iresnet_flows.bridge import to_nflows, to_normflows, to_pyro, to_zuko
from iresnet_flows.errors import InputOutsideDomain, InverseNotAvailable

# Linear transforms of nflows and Pyro still call them.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:torch.{name} is deprecated:UserWarning")
    for name in ("triangular_solve", "lu")
]

WEIGHTS = torch.tensor([0.0, 1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
VECTORS = {name: case for name, case in CASES.items() if case.event == (4,)}
WHOLE = {name: case for name, case in VECTORS.items() if case.lacks is None and "tanh" not in name}
ONE_SIDED = {name: case for name, case in CASES.items() if case.lacks is not None}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_host = pytest.mark.parametrize("host", BRIDGES)


def points(case, transform, x, context):
    """Where to ask for each way: the data, and their noise."""
    if case.lacks is not None:
        return {"to_noise": x, "to_data": x}
    # A clone, which is in none of Pyro's caches.
    noise = to_noise(case.host, transform, x.clone(), context)[0].detach().clone()
    return {"to_noise": x, "to_data": noise}


def close(result, expected, tolerance=1e-9):
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


@each_host
@each_case
def test_data_and_noise_are_those_of_its_own_host(case, host):
    transform, x, context = case()
    bridged = case.bridged(host, transform)
    for way in case.ways:
        point = points(case, transform, x, context)[way]
        expected = WAYS[way](case.host, transform, point.clone(), context)[0]
        close(WAYS[way](host, bridged, point, context)[0], expected)
        assert (expected - point).abs().max() > 0.05


@each_host
@each_case
def test_log_dets_are_those_of_the_dense_jacobian(case, host):
    transform, x, context = case()
    bridged = case.bridged(host, transform)
    for way in case.ways:
        point = points(case, transform, x, context)[way]

        def value(t, way=way):
            return WAYS[way](host, bridged, t, context)[0].sum(0).flatten()

        jacobian = torch.autograd.functional.jacobian(value, point).transpose(0, 1).flatten(2)
        truth = torch.linalg.slogdet(jacobian).logabsdet
        _, ladj = WAYS[way](host, bridged, point, context)
        assert ladj.shape == (5,)
        assert truth.abs().min() > 1e-3
        close(ladj, truth, 1e-8)


@each_host
@each_case
def test_the_ways_undo_each_other_or_one_is_refused_with_its_reason(case, host):
    transform, x, context = case()
    bridged = case.bridged(host, transform)
    if case.lacks is None:
        noise, _ = to_noise(host, bridged, x, context)
        close(to_data(host, bridged, noise.clone(), context)[0], x, 1e-8)
    else:
        reason = r"inverse: .*(no algebraic inverse|cache)"
        with pytest.raises(InverseNotAvailable, match=reason) as caught:
            WAYS[case.lacks](host, bridged, x, context)
        if host == "nflows":
            assert isinstance(caught.value, nt.InverseNotAvailable)


@each_host
@each_case
def test_gradients_are_those_of_its_own_host(case, host):
    transform, x, context = case()
    bridged = case.bridged(host, transform)
    parameters = [*bridged.parameters()]
    for way in case.ways:
        point = points(case, transform, x, context)[way].requires_grad_()

        def gradients(host, transform, way=way, point=point):
            value, ladj = WAYS[way](host, transform, point, context)
            per_sample = value.square().flatten(1).sum(1) + ladj
            return torch.autograd.grad(
                WEIGHTS @ per_sample, [point, *parameters], materialize_grads=True
            )

        for result, expected in zip(
            gradients(host, bridged), gradients(case.host, transform), strict=True
        ):
            close(result, expected, 1e-8)


@each_host
@each_case
def test_parameters_and_buffers_are_shared_and_saved_once(case, host):
    transform, *_ = case()
    bridged = case.bridged(host, transform)
    if isinstance(transform, nn.Module):
        assert set(map(id, bridged.parameters())) == set(map(id, transform.parameters()))
        assert set(map(id, bridged.buffers())) == set(map(id, transform.buffers()))
    tensors = [*bridged.state_dict(keep_vars=True).values()]
    assert len(set(map(id, tensors))) == len(tensors)


@each_host
@each_case
def test_copies_and_saved_weights_give_the_same(case, host):
    transform, x, context = case()
    bridged = case.bridged(host, transform)
    fresh = case.bridged(host, case(seed=7)[0])
    way = case.ways[-1]
    point = points(case, transform, x, context)[way]
    expected = WAYS[way](host, bridged, point, context)

    file = io.BytesIO()
    torch.save(bridged.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for other in (fresh, copy.deepcopy(bridged), pickle.loads(pickle.dumps(bridged))):
        for result, value in zip(WAYS[way](host, other, point, context), expected, strict=True):
            assert torch.equal(result, value)


@each_host
@each_case
def test_dtype_and_shape_are_kept_down_to_an_empty_batch(case, host):
    transform, x, context = case()
    way = case.ways[-1]
    point = points(case, transform, x, context)[way]
    bridged = case.bridged(host, transform)
    for dtype in (torch.float64, torch.float32):
        bridged.to(dtype)
        for batch in (5, 1, 0):
            cut = None if context is None else context[:batch].to(dtype)
            value, ladj = WAYS[way](host, bridged, point[:batch].to(dtype), cut)
            assert value.shape == point[:batch].shape
            assert ladj.shape == (batch,)
            assert value.dtype == ladj.dtype == dtype


@each_host
@pytest.mark.parametrize("case", WHOLE.values(), ids=WHOLE)
def test_the_density_is_that_of_its_own_host_and_scores_its_samples(case, host):
    transform, x, context = case()
    own, other = (
        Density(case.host, transform, context),
        Density(host, case.bridged(host, transform), context),
    )
    close(other.log_prob(x), own.log_prob(x), 1e-8)
    sample = other.sample(5).detach()
    assert sample.shape == (5, 4)
    close(other.log_prob(sample.clone()), own.log_prob(sample.clone()), 1e-8)


@each_host
@each_case
def test_a_second_crossing_takes_the_layer_out_of_the_adapter(case, host):
    transform, x, context = case()
    hosts = list(BRIDGES)
    between = hosts[hosts.index(host) - 1]
    first = case.bridged(between, transform)
    second = case.bridged(host, first)
    assert second.layer is first.layer
    way = case.ways[-1]
    point = points(case, transform, x, context)[way]
    close(
        WAYS[way](host, second, point, context)[0],
        WAYS[way](between, first, point, context)[0],
    )


@each_host
@pytest.mark.parametrize("explicit", ["forward", "inverse"])
def test_a_side_that_is_asked_for_is_the_transform_itself(host, explicit):
    transform, x, _ = CASES["nflows, affine coupling"]()
    bridged = BRIDGES[host](transform, explicit)
    normalizing = (host in ("nflows", "zuko")) == (explicit == "forward")
    way = to_noise if normalizing else to_data
    close(way(host, bridged, x)[0], transform(x)[0])


OWN = {
    "inverse of torch": (tt.AffineTransform(1.0, 3.0).inv, lambda t, x: t(x)),
    "nflows, inverse": (to_nflows(tt.AffineTransform(1.0, 3.0)), lambda t, x: t(x)[0]),
    "normflows, inverse": (
        to_normflows(tt.AffineTransform(1.0, 3.0), "inverse"),
        lambda t, x: t(x)[0],
    ),
    "pyro, inverse": (to_pyro(tt.AffineTransform(1.0, 3.0), "inverse"), lambda t, x: t(x)),
    "zuko, inverse": (to_zuko(tt.AffineTransform(1.0, 3.0), "inverse"), lambda t, x: t()(x)),
}


@each_host
@pytest.mark.parametrize("explicit", ["forward", "inverse"])
@pytest.mark.parametrize(("transform", "call"), OWN.values(), ids=OWN)
def test_the_side_that_is_asked_for_is_the_own_one_of_what_is_inverted(
    host, explicit, transform, call
):
    bridged, x = BRIDGES[host](transform, explicit), torch.tensor([[2.0, -5.0]])
    normalizing = (host in ("nflows", "zuko")) == (explicit == "forward")
    close((to_noise if normalizing else to_data)(host, bridged, x)[0], call(transform, x))


@each_host
@pytest.mark.parametrize("case", ONE_SIDED.values(), ids=ONE_SIDED)
def test_a_transform_without_inverse_has_gradients_the_other_way(case, host):
    transform, x, context = case()
    bridged = case.bridged(host, transform)
    _, ladj = WAYS[case.ways[0]](host, bridged, x, context)
    ladj.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in bridged.parameters())


def test_pyro_scores_the_samples_of_what_it_cannot_invert():
    transform, *_ = CASES["normflows, planar"]()
    bridged = to_pyro(transform)
    flow = Density("pyro", bridged).flow
    noise = torch.randn(6, 4, dtype=torch.float64)
    truth = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(1) - transform(noise)[1]
    close(flow.log_prob(bridged(noise)), truth)


@each_host
def test_no_cache_of_the_other_host_is_used_or_filled(host):
    transform, x, _ = CASES["pyro, spline coupling"]()
    own = transform(x)
    bridged = BRIDGES[host](transform)
    before = dict(vars(transform))
    first = to_data(host, bridged, x)[0]
    assert torch.equal(first, own)
    first.sum().backward()
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter.add_(0.1)
    second = to_data(host, bridged, x)[0]
    assert (second - first).abs().max() > 1e-3
    second.sum().backward()
    assert transform(x) is own
    assert all(vars(transform)[name] is value for name, value in before.items())


@each_host
def test_modes_pass_through_and_the_host_says_why_it_has_no_inverse(host):
    transform = nt.BatchNorm(4).double()
    bridged, x = BRIDGES[host](transform), torch.randn(5, 4, dtype=torch.float64)
    assert bridged.train() is bridged
    assert transform.training
    close(to_noise(host, bridged, x)[0].mean(0), torch.zeros(4, dtype=torch.float64))
    with pytest.raises(
        InverseNotAvailable, match=r"BatchNorm of nflows .* only available in eval"
    ):
        to_data(host, bridged, x)
    bridged.eval()
    assert not transform.training
    close(to_data(host, bridged, to_noise(host, bridged, x)[0].clone())[0], x)


@each_host
def test_an_inverse_that_torch_took_away_is_not_available(host):
    transform = nt.NaiveLinear(4, orthogonal_initialization=False).double()
    bridged, x = BRIDGES[host](transform), torch.randn(5, 4, dtype=torch.float64)
    noise, _ = to_noise(host, bridged, x)
    assert not torch.allclose(noise, x)
    with pytest.raises(
        InverseNotAvailable,
        match=r"NaiveLinear of nflows .* inverse: it needs what torch \S+ lacks",
    ):
        to_data(host, bridged, x)


@pytest.mark.parametrize("host", ["pyro", "zuko"])
def test_leading_dimensions_and_contexts_broadcast(host):
    case = CASES["nflows, affine coupling, context"]
    transform, x, context = case()
    bridged = case.bridged(host, transform)
    many = torch.stack([x, 2 * x])
    noise, ladj = to_noise(host, bridged, many, context)
    for i in range(2):
        expected = transform(many[i], context)
        close(noise[i], expected[0])
        close(ladj[i], expected[1])
    close(to_noise(host, bridged, x, context[0])[0], transform(x, context[:1].expand(5, -1))[0])


@each_host
def test_a_context_is_not_passed_to_what_takes_none(host):
    transform, x, _ = CASES["normflows, affine coupling"]()
    context = torch.randn(5, 3, dtype=torch.float64)
    bridged = to_pyro(transform, conditional=True) if host == "pyro" else BRIDGES[host](transform)
    close(to_noise(host, bridged, x, context)[0], transform.inverse(x)[0])


def test_a_context_reaches_through_reverse_and_composite():
    flow, x, context = CASES["normflows, autoregressive, context"]()
    layers = [nf.flows.Reverse(flow), nf.flows.Permute(4)]
    z, logabsdet = to_nflows(nf.flows.Composite(layers)).inverse(x, context)
    expected = flow.inverse(x, context=context)
    close(z, layers[1](expected[0])[0])
    close(logabsdet, expected[1])


def test_a_missing_context_is_asked_for():
    with pytest.raises(ValueError, match=r"ConditionalPlanar .* pass a context"):
        to_nflows(pt.conditional_planar(4, 3)).inverse(torch.randn(5, 4))


def test_pyro_tells_what_is_conditional_also_by_way_of_another_host():
    conditional = pt.conditional_generalized_channel_permute(context_dim=3, channels=4)
    assert hasattr(to_pyro(conditional), "condition")
    for bridge in BRIDGES.values():
        crossed = to_pyro(bridge(conditional))
        assert hasattr(crossed, "condition")
        assert crossed.event_dim == 3
    assert not hasattr(to_pyro(pt.spline(4)), "condition")
    with pytest.raises(ValueError, match="the layer asks for a context: use Conditional"):
        to_pyro(conditional, conditional=False)


def test_the_dimensions_of_an_event_are_those_that_a_transform_says():
    images = to_nflows(pt.generalized_channel_permute(channels=4))
    assert to_pyro(images).event_dim == to_zuko(images).event_dim == 3
    assert to_pyro(to_zuko(images)).event_dim == to_zuko(to_pyro(images)).event_dim == 3
    for scalars in (tt.ExpTransform(), pt.conditional_spline(4, 3)):
        assert to_pyro(scalars).event_dim == to_zuko(scalars).event_dim == 1


def test_a_conditional_transform_of_scalars_takes_vectors_with_their_contexts():
    spline, x, context = pt.conditional_spline(4, 3, [6]), torch.randn(5, 4), torch.randn(5, 3)
    own = spline.condition(context)
    y, ladj = own(x), own.log_abs_det_jacobian(x, own(x)).sum(-1)
    for crossed in (to_pyro(spline).condition(context), to_zuko(spline)(context).inv):
        close(crossed(x), y)
        close(crossed.log_abs_det_jacobian(x, y), ladj)


def test_tensors_of_plain_transforms_become_parameters_and_buffers():
    scale = nn.Parameter(torch.tensor([2.0, -0.5]))
    inner = tt.ComposeTransform([tt.AffineTransform(torch.tensor([1.0, 3.0]), scale)])
    bridged = to_nflows(inner)
    assert list(map(id, bridged.parameters())) == [id(scale)]
    assert [buffer.tolist() for buffer in bridged.buffers()] == [[1.0, 3.0]]
    assert list(bridged.state_dict()) == [
        "layer.parts.parts_0_scale",
        "layer.parts.parts_0_loc",
    ]
    x = torch.tensor([[5.0, 2.0]], dtype=torch.float64)
    z, logabsdet = bridged.double()(x)
    close(z, torch.tensor([[2.0, 2.0]], dtype=torch.float64))
    close(logabsdet, torch.zeros(1, dtype=torch.float64))
    assert inner.parts[0].loc.dtype == torch.float32


class Shifted(tt.Transform):
    """A transform that keeps parameters in places of its own, one of them of an awkward name."""

    domain = codomain = tt.constraints.real_vector
    bijective = True

    def __init__(self):
        super().__init__()
        self.type = nn.Parameter(torch.tensor(1.0))
        self.listed = [nn.Parameter(torch.tensor(2.0)), nn.Linear(1, 1)]
        self.named = {"a.b": nn.Parameter(torch.tensor(3.0)), "size": 4.0}

    def shift(self):
        return self.type + self.listed[0] + self.named["a.b"] + self.listed[1].bias.sum()

    def _call(self, x):
        return x + self.shift()

    def _inverse(self, y):
        return y - self.shift()

    def log_abs_det_jacobian(self, x, y):
        return x.new_zeros(x.shape[:-1])


def test_parameters_in_lists_and_under_awkward_names_are_found_and_move():
    transform, x = Shifted(), torch.zeros(1, 2)
    bridged = to_normflows(transform)
    assert len(list(bridged.parameters())) == 5
    with torch.no_grad():
        for parameter in bridged.parameters():
            parameter.zero_()
    assert torch.equal(bridged(x)[0], x)
    assert bridged.double()(x.double())[0].dtype == torch.float64
    assert set(copy.deepcopy(bridged).state_dict()) == set(bridged.state_dict())


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.inv,
        lambda t: tt.ComposeTransform([tt.ExpTransform(), t.inv]),
        lambda t: tt.IndependentTransform(t, 1),
        lambda t: pt.ComposeTransformModule([t.inv]),
    ],
    ids=["inverse", "composition", "independent", "module"],
)
def test_parameters_are_found_inside_of_transforms(make):
    transform = pt.batchnorm(4)
    bridged = to_normflows(make(transform))
    assert set(map(id, bridged.parameters())) == set(map(id, transform.parameters()))


def test_parameters_of_a_conditioned_transform_are_found():
    conditional, context = pt.conditional_planar(4, 3), torch.randn(3)
    bridged = to_normflows(conditional.condition(context))
    assert set(map(id, bridged.parameters())) == set(map(id, conditional.parameters()))
    z = torch.randn(5, 4)
    close(bridged(z)[0], conditional.condition(context)(z), 1e-6)


def test_a_conditioned_layer_of_this_package_keeps_its_context():
    block = InvertibleResidualBlock(LipschitzMLP(4, (8,), context_features=3))
    z, context = torch.randn(5, 4), torch.randn(5, 3)
    bridged = to_normflows(to_pyro(block).condition(context))
    assert set(map(id, bridged.parameters())) == set(map(id, block.parameters()))
    close(bridged(z)[0], block.transform(z, context))
    close(bridged(z)[1], block(z, context)[1])


@each_host
@pytest.mark.parametrize(
    "name",
    [
        "nflows, affine coupling",
        "pyro, affine coupling inverted",
        "normflows, composite and reverse",
    ],
)
def test_the_device_is_kept(name, host):
    transform, x, _ = CASES[name]()
    bridged = BRIDGES[host](transform).to("meta")
    value, ladj = to_noise(host, bridged, x.to("meta"))
    assert value.is_meta
    assert ladj.is_meta


def test_lazily_computed_tensors_are_not_saved():
    transform = pt.Permute(torch.tensor([2, 0, 1, 3]))
    transform.inv(torch.randn(5, 4))
    assert list(to_nflows(transform).state_dict()) == ["layer.parts.permutation"]


@each_host
def test_log_dets_have_the_dtype_and_batch_of_the_values(host):
    _, ladj = to_data(host, BRIDGES[host](nf.flows.Permute(4)), torch.randn(5, 4).double())
    assert ladj.dtype == torch.float64  # normflows' own is in single precision
    _, ladj = to_data(
        host, BRIDGES[host](nf.flows.InvertibleAffine(4, use_lu=False)), torch.eye(4)
    )
    assert ladj.shape == (4,)  # normflows' own is one number


def test_composites_keep_double_precision():
    flows = [nf.flows.ActNorm(4).double() for _ in range(3)]
    z = torch.randn(5, 4, dtype=torch.float64)
    for flow in flows:
        flow(z)
    _, logabsdet = to_nflows(nf.flows.Composite(flows)).inverse(z)
    close(logabsdet, sum(flow(z)[1] for flow in flows).expand(5), 1e-14)


def test_one_dimensional_transforms_say_whether_they_increase():
    base = torch.distributions.Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    falling = to_pyro(tt.AffineTransform(1.0, -2.0), event_dim=0)
    assert falling.sign == -1
    flow = torch.distributions.TransformedDistribution(base, [falling])
    close(flow.cdf(torch.tensor([3.0]).double()), 1 - base.cdf(torch.tensor([-1.0]).double()))
    with pytest.raises(NotImplementedError, match="ActNorm of nflows does not say"):
        to_pyro(nt.ActNorm(1)).sign  # noqa: B018


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (nn.Linear(2, 2), r"Flow.*LazyTransform.*Linear"),
        (nf.flows.MetropolisHastings(None, None, 1), "at random"),
        (tt.SoftmaxTransform(), "not bijective"),
        ("forward", "got str"),
    ],
    ids=["module", "stochastic", "not bijective", "string"],
)
@each_host
def test_whatever_is_no_map_with_a_density_is_refused(transform, message, host):
    with pytest.raises(TypeError, match=message):
        BRIDGES[host](transform)


@each_host
def test_reshaping_is_refused(host):
    bridge = partial(BRIDGES[host], event_dim=3) if host in ("pyro", "zuko") else BRIDGES[host]
    bridged = bridge(nf.flows.Squeeze())
    with pytest.raises(ValueError, match=r"Squeeze of normflows .* shape of an event"):
        to_data(host, bridged, torch.randn(2, 4, 2, 2))


@each_host
def test_splitting_is_refused(host):
    with pytest.raises(ValueError, match="Split of normflows makes list of"):
        to_data(host, BRIDGES[host](nf.flows.Split()), torch.randn(2, 4))


@each_host
def test_values_outside_of_the_domain_are_refused(host):
    bridged = BRIDGES[host](tt.TanhTransform())
    said = r"TanhTransform of torch takes values in .*\[-3, 2\]"
    with pytest.raises(InputOutsideDomain, match=said) as caught:
        to_noise(host, bridged, torch.tensor([[2.0, -3.0]]))
    assert isinstance(caught.value, nt.InputOutsideDomain) == (host == "nflows")


@each_host
def test_values_outside_of_the_domain_of_a_part_are_refused(host):
    bridged = BRIDGES[host](tt.ComposeTransform([tt.ExpTransform(), tt.AffineTransform(0.0, 2.0)]))
    with pytest.raises(InputOutsideDomain, match=r"takes values in GreaterThan.*\[-0.5, 1\]"):
        to_noise(host, bridged, torch.tensor([[-1.0, 2.0]]))
    close(to_noise(host, bridged, torch.tensor([[2.0, 2.0]]))[0], torch.zeros(1, 2))


def test_a_stack_of_scalar_transforms_has_the_log_det_of_a_vector():
    bridged = to_nflows(tt.StackTransform([tt.ExpTransform(), tt.AffineTransform(1.0, 2.0)], -1))
    x = torch.randn(5, 2)
    y, logabsdet = bridged.inverse(x)
    close(y, torch.stack((x[:, 0].exp(), 1 + 2 * x[:, 1]), -1), 1e-6)
    close(logabsdet, x[:, 0] + torch.tensor(2.0).log(), 1e-6)


CONDITIONED = {
    "zuko": lambda: zuko.flows.MaskedAutoregressiveTransform(3, context=2, hidden_features=(8,)),
    "pyro": lambda: pt.conditional_affine_autoregressive(3, 2, hidden_dims=[8]),
}


@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("kind", CONDITIONED)
def test_rows_of_a_context_are_samples_whatever_dimensions_follow(kind, count):
    transform = CONDITIONED[kind]()
    for parameter in transform.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, context = torch.randn(4, count, 3), torch.randn(4, 2)
    values, logabsdet = to_nflows(transform, "forward")(x, context)
    for row in range(4):
        own = transform(context[row]) if kind == "zuko" else transform.condition(context[row])
        y = own(x[row])
        close(values[row], y, 1e-5)
        close(logabsdet[row], own.log_abs_det_jacobian(x[row], y).sum(), 1e-5)


@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_one_context_serves_all_samples(shape):
    context = torch.randn(shape)
    coupling, x, contexts = CASES["nflows, affine coupling, context"]()
    one = contexts[:1].reshape(*shape[:-1], -1)
    close(to_nflows(coupling)(x, one)[0], coupling(x, contexts[:1].expand(len(x), -1))[0])
    permute = pt.conditional_generalized_channel_permute(3, channels=4)
    images = torch.randn(5, 4, 2, 2)
    own = permute.condition(context.reshape(-1))
    y, logabsdet = to_nflows(permute).inverse(images, context)
    close(y, own(images), 1e-5)
    close(logabsdet, own.log_abs_det_jacobian(images, y).expand(5), 1e-5)


@each_host
def test_values_outside_of_the_domain_of_nflows_are_refused_with_their_range(host):
    bridged = BRIDGES[host](nt.Logit())
    with pytest.raises(InputOutsideDomain, match=r"Logit of nflows .* \[-3, 2\], in its forward"):
        to_noise(host, bridged, torch.tensor([[2.0, -3.0]]))


def test_a_batch_without_the_dimensions_of_an_event_is_refused():
    with pytest.raises(ValueError, match="events of 3 dimensions"):
        to_nflows(pt.generalized_channel_permute(channels=4))(torch.randn(5, 4))


def test_a_glow_block_trains_beside_a_residual_block_on_images():
    torch.manual_seed(0)
    block = InvertibleResidualBlock(LipschitzConvNet(4, (6,), (3, 3), lipschitz=0.7))
    transform = nt.CompositeTransform([to_nflows(block), to_nflows(glow_block())])
    x = torch.randn(32, 4, 2, 2).exp()
    optimiser = torch.optim.Adam(transform.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        z, logabsdet = transform(x)
        loss = (z.square().flatten(1).sum(1) / 2 - logabsdet).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
    close(transform.inverse(transform(x)[0])[0], x, 1e-4)


def test_a_copy_has_the_names_of_what_it_is_a_copy_of():
    """A part that a composition holds twice has one copy."""
    transforms = pytest.importorskip("pyro.distributions.transforms")
    flow = to_nflows(transforms.iterated(2, transforms.affine_autoregressive, 2))
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert twin.state_dict().keys() == flow.state_dict().keys()
        flow.load_state_dict(twin.state_dict())
        x = torch.randn(3, 2)
        torch.testing.assert_close(twin(x), flow(x))


def test_a_conditional_form_without_a_context_shares_its_parameters():
    conditional = pytest.importorskip("pyro.distributions.conditional")
    transforms = pytest.importorskip("pyro.distributions.transforms")
    coupling = transforms.affine_coupling(2)
    flow = to_nflows(conditional.ConstantConditionalTransform(coupling))
    assert {*map(id, flow.parameters())} == {*map(id, coupling.parameters())}
    x = torch.randn(3, 2)
    torch.testing.assert_close(flow.inverse(x)[0], coupling(x))
