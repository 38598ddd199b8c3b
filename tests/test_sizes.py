"""Every branch in every size, with each solver and estimator: what is cheap to check of each."""

from __future__ import annotations

from dataclasses import replace

import contract
import pytest
import torch
from cases import SIZES, SOLVERS

from iresnet_flows import Exact, PowerSeries, RussianRoulette

pytestmark = pytest.mark.numerics

ESTIMATORS = {
    "exact": Exact(),
    "series": PowerSeries(terms=12, probes=200),
    "series by tolerance": PowerSeries(tolerance=1e-3, probes=200),
    "roulette": RussianRoulette(probes=200),
}

each_size = pytest.mark.parametrize("case", SIZES.values(), ids=SIZES)
each_step = pytest.mark.parametrize("step", [0.0, 0.5, 30.0], ids=["fresh", "moved", "blown up"])
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@each_size
@each_step
@both_dtypes
@pytest.mark.parametrize("kind", SOLVERS)
def test_the_inverse_is_as_near_as_the_solver_says(case, step, dtype, kind):
    contract.inverts_within_its_error_bound(replace(case, step=step), dtype, kind())


@each_size
def test_copies_are_the_same_layer(case):
    contract.survives_copies(case)


@each_size
@both_dtypes
@pytest.mark.parametrize("log_det", ESTIMATORS.values(), ids=ESTIMATORS)
def test_the_log_det_is_as_near_as_the_estimate_says(case, dtype, log_det):
    contract.has_the_log_det_within_its_errors(case, dtype, log_det)


@each_size
@both_dtypes
@pytest.mark.parametrize("log_det", ESTIMATORS.values(), ids=ESTIMATORS)
def test_each_sample_has_its_own_weight_in_the_gradient(case, dtype, log_det):
    if not isinstance(log_det, Exact):
        log_det = replace(log_det, probes=2)
    contract.weighs_each_sample_alone(case, dtype, log_det)
