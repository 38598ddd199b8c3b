"""Measuring log|det(I + J)|: estimators of one call, each with its value, gradient and error."""

from iresnet_flows.logdet.estimates import LogDet
from iresnet_flows.logdet.exact import Exact
from iresnet_flows.logdet.series import PowerSeries

__all__ = ["Exact", "LogDet", "PowerSeries"]
