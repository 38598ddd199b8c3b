"""Measuring log|det(I + J)|: estimators of one call, each with its value, gradient and error."""

from iresnet_flows.logdet.estimates import Estimator, LogDet
from iresnet_flows.logdet.exact import Exact
from iresnet_flows.logdet.roulette import RussianRoulette
from iresnet_flows.logdet.series import PowerSeries

__all__ = ["Estimator", "Exact", "LogDet", "PowerSeries", "RussianRoulette"]
