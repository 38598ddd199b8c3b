"""Every promise of the contract, for every layer."""

from __future__ import annotations

import contract
import pytest
import torch
from cases import params

each_case = pytest.mark.parametrize("case", params())
each_mappable_case = pytest.mark.parametrize("case", params("vmap"))
both_sides = pytest.mark.parametrize("side", contract.SIDES)


@each_case
def test_the_inverse_undoes_the_layer_and_the_layer_undoes_the_inverse(case):
    contract.inverts_both_ways(case)


@each_case
def test_the_case_is_far_from_the_identity(case):
    contract.moves_and_scales(case)


@each_case
@both_sides
def test_the_log_det_is_that_of_the_dense_jacobian(case, side):
    contract.has_the_log_det_of_its_jacobian(case, side)


@each_case
def test_forward_and_inverse_log_dets_cancel(case):
    contract.cancels_its_log_dets(case)


@each_case
def test_transform_and_invert_give_the_value_alone(case):
    contract.gives_the_value_alone(case)


@each_case
def test_a_deferred_log_det_is_that_of_the_same_pass(case):
    contract.gives_the_log_det_later(case)


@each_case
@both_sides
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradients_with_unequal_weights_are_those_of_each_sample(case, side, training):
    contract.has_gradients_of_each_sample(case, side, training)


@pytest.mark.parametrize("case", params(second=True))
@both_sides
def test_gradients_are_those_of_finite_differences(case, side):
    contract.has_gradients_of_finite_differences(case, side)


@pytest.mark.parametrize("case", params(second=True))
@both_sides
def test_second_derivatives_are_those_of_finite_differences(case, side):
    contract.has_second_derivatives_of_finite_differences(case, side)


@each_case
def test_float64_and_the_shape_are_kept_down_to_an_empty_batch(case):
    contract.keeps_dtype_and_shape(case, torch.float64)


@pytest.mark.parametrize("case", params("float32"))
def test_float32_and_the_shape_are_kept_down_to_an_empty_batch(case):
    contract.keeps_dtype_and_shape(case, torch.float32)


@pytest.mark.parametrize("case", params("float32"))
def test_float32_agrees_with_float64(case):
    contract.agrees_between_dtypes(case)


@each_case
def test_an_empty_batch_has_gradients(case):
    contract.takes_an_empty_batch_backwards(case)


@each_case
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_values_are_the_same_without_gradients(case, mode):
    contract.works_without_gradients(case, mode)


@each_mappable_case
@both_sides
def test_vmap_over_a_leading_dimension_equals_a_loop(case, side):
    contract.maps_over_leading_dimensions(case, side)


@pytest.mark.parametrize("case", params("func"))
@both_sides
def test_functional_gradients_equal_those_of_autograd(case, side):
    contract.has_functional_gradients(case, side)


@pytest.mark.parametrize("case", params("vmap"))
@both_sides
def test_vmapped_gradients_of_each_sample_equal_a_loop(case, side):
    contract.has_functional_gradients_of_each_sample(case, side)


@each_case
def test_saving_and_loading_into_a_fresh_object_gives_the_same_layer(case):
    contract.survives_saving_into_a_fresh_object(case)


@each_case
def test_copies_and_pickles_are_the_same_layer(case):
    contract.survives_copies(case)


@each_case
def test_no_call_changes_its_arguments_or_the_parameters(case):
    contract.leaves_its_arguments_alone(case)


@each_case
@both_sides
def test_every_parameter_gets_a_gradient(case, side):
    contract.gives_every_parameter_a_gradient(case, side)


@each_case
def test_train_and_eval_agree(case):
    contract.is_the_same_in_train_and_eval(case)
