"""normflows' objectives on residual blocks: values and gradients are those of dense Jacobians."""

import copy

import pytest
import torch

pytest.importorskip("normflows")

from hosts import assert_has_gradients_of, dense_log_prob, make_normflows, points

both_sides = pytest.mark.parametrize("explicit", ["inverse", "forward"])
each_context = pytest.mark.parametrize("context_features", [None, 3], ids=["plain", "context"])

COUNT = 8


class Target(torch.nn.Module):
    """A correlated, skewed density, up to its constant."""

    def log_prob(self, z, context=None):
        bend = z[:, 1] - 0.3 * z[:, 0].square()
        if context is not None:
            bend = bend - context.sum(-1)
        return -0.5 * (z[:, 0] - 1).square() - bend.square()


def mean_log_ratio(beta):
    return lambda log_p, log_q: log_q.mean() - beta * log_p.mean()


def renyi(alpha):
    sign = 1 if alpha > 1 else -1
    return lambda log_p, log_q: sign * torch.logsumexp(alpha * (log_p - log_q), 0)


def doubly_reparametrized(alpha):
    """Tucker et al., 2019: the path alone, with the squares of the normalised weights."""

    def loss(log_p, log_q):
        ratio = log_p - log_q
        weights = (alpha * ratio).softmax(0).detach() * len(ratio)
        weights = (1 - alpha) * weights + alpha * weights.square()
        return -alpha * (weights * ratio).mean()

    return loss


# Called by its name and arguments; the loss of log p and log q; whether q is held, and with it
# only the path through the samples differentiated.
REVERSE_KLD = {
    "reverse_kld": ("reverse_kld", {}, mean_log_ratio(1), False),
    "reverse_kld, annealed": ("reverse_kld", {"beta": 0.3}, mean_log_ratio(0.3), False),
    "reverse_kld, no score": ("reverse_kld", {"score_fn": False}, mean_log_ratio(1), True),
}
ALPHA_DIVERGENCES = {
    "alpha below 1": ("reverse_alpha_div", {"alpha": 0.5}, renyi(0.5), False),
    "alpha above 1": ("reverse_alpha_div", {"alpha": 2}, renyi(2), False),
    "dreg": ("reverse_alpha_div", {"dreg": True}, doubly_reparametrized(1), True),
    "dreg, alpha": (
        "reverse_alpha_div",
        {"dreg": True, "alpha": 0.5},
        doubly_reparametrized(0.5),
        True,
    ),
}


def assert_objective(flow, name, arguments, loss, held, **context):
    """The value and every gradient of an objective, against the dense truth on the same draws."""
    torch.manual_seed(1)
    result = getattr(flow, name)(COUNT, **arguments, **context)
    torch.manual_seed(1)
    z, _ = flow.sample(COUNT, **context)
    q = copy.deepcopy(flow).requires_grad_(requires_grad=False) if held else flow
    truth = loss(flow.p.log_prob(z, **context), dense_log_prob(q, z, **context))
    # With q held, normflows adds log q in float32, whatever it is given.
    torch.testing.assert_close(result, truth, rtol=1e-5, atol=1e-6, check_dtype=False)

    assert_has_gradients_of(result, truth, list(flow.parameters()), rtol=1e-5, atol=1e-6)


@both_sides
@pytest.mark.parametrize(
    "objective", (REVERSE_KLD | ALPHA_DIVERGENCES).items(), ids=lambda o: o[0]
)
def test_reverse_objectives_have_the_gradients_of_the_dense_truth(explicit, objective):
    assert_objective(make_normflows(explicit, p=Target()), *objective[1])


@both_sides
@pytest.mark.parametrize("objective", REVERSE_KLD.items(), ids=lambda o: o[0])
def test_they_have_them_with_a_context(explicit, objective):
    flow = make_normflows(explicit, context_features=3, p=Target())
    assert_objective(flow, *objective[1], context=points(COUNT, 3))


@both_sides
@each_context
def test_forward_kld_has_the_gradients_of_the_dense_truth(explicit, context_features):
    flow = make_normflows(explicit, context_features=context_features)
    x = points(6, 2).square()
    context = {} if context_features is None else {"context": points(6, 3)}
    result, truth = flow.forward_kld(x, **context), -dense_log_prob(flow, x, **context).mean()
    # normflows sums this loss in float32, whatever it is given.
    torch.testing.assert_close(result, truth, rtol=0, atol=1e-5, check_dtype=False)
    assert_has_gradients_of(result, truth, list(flow.parameters()), rtol=1e-5, atol=1e-6)


def fit(flow, loss):
    """The losses of some steps with the same draws in each."""
    optimiser = torch.optim.Adam(flow.parameters(), lr=2e-2)
    losses = []
    for _ in range(15):
        torch.manual_seed(1)
        value = loss(flow)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    return losses


def test_forward_kld_trains():
    x = points(64, 2).square()
    losses = fit(make_normflows(), lambda flow: flow.forward_kld(x))
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("arguments", [{}, {"score_fn": False}])
def test_reverse_kld_trains_towards_the_target(arguments):
    flow = make_normflows("forward", p=Target())
    losses = fit(flow, lambda flow: flow.reverse_kld(128, **arguments))
    assert losses[-1] < losses[0] - 0.1
