"""What is measured of a flow tells a fault that is there."""

import pytest
import torch

pytest.importorskip("nflows")
pytest.importorskip("rich")

from nflows.transforms import CompositeTransform, LULinear

from iresnet_flows import InvertibleResidualBlock, LipschitzMLP, PowerSeries
from iresnet_flows.experiments.comparison.probes import probe
from iresnet_flows.experiments.comparison.properties import measure
from iresnet_flows.experiments.quietness import quiet
from iresnet_flows.nflows import Flow, InvertibleResidualTransform, StandardNormal

D = 4


@pytest.fixture(autouse=True)
def _quiet():
    with quiet():
        yield


class Off(LULinear):
    """A log-det that is wrong, but the same for each row and in each call."""

    def forward(self, inputs, context=None):
        outputs, log_det = super().forward(inputs, context)
        return outputs, 1.1 * log_det


class Deaf(LULinear):
    """An inverse without a gradient."""

    def inverse(self, inputs, context=None):
        outputs, log_det = super().inverse(inputs, context)
        return outputs.detach(), log_det


class Surrogate(LULinear):
    """A log-det whose gradient is that of one row for all."""

    def forward(self, inputs, context=None):
        outputs, log_det = super().forward(inputs, context)
        return outputs, log_det.detach() + (log_det - log_det.detach())[0] * len(log_det)


def flow(layer):
    torch.manual_seed(0)
    steps = [LULinear(D), layer()]
    made = Flow(CompositeTransform(steps), StandardNormal([D]))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return made.eval()


def linear():
    return LULinear(D)


def block(log_det=None):
    return lambda: InvertibleResidualTransform(
        InvertibleResidualBlock(LipschitzMLP(D, (8, 8), 0.9), log_det)
    )


def rows():
    return torch.randn(16, D, generator=torch.Generator().manual_seed(1))


def test_a_short_series_is_biased_and_no_exact_likelihood():
    right = measure(flow(block()), rows()).properties
    assert right["unbiased_log_det"] and right["exact_likelihood"]
    short = measure(flow(block(PowerSeries(terms=1))), rows())
    assert short.properties["unbiased_log_det"] is False
    assert short.properties["exact_likelihood"] is False


def test_a_log_det_that_is_wrong_is_no_exact_likelihood():
    assert measure(flow(linear), rows()).properties["exact_likelihood"]
    assert measure(flow(lambda: Off(D)), rows()).properties["exact_likelihood"] is False


def test_probes_tell_gradients_that_are_missing_or_wrong():
    right = probe(flow(linear), rows())
    assert right["inverse_gradient_error"] < 1e-10
    assert right["weighted_gradient_error"] < 1e-6
    assert probe(flow(lambda: Deaf(D)), rows())["inverse_gradient_error"] is None
    assert probe(flow(lambda: Surrogate(D)), rows())["weighted_gradient_error"] > 1e-2
