"""Maps with all that they depend on in place, and their Jacobians as products."""

from iresnet_flows.maps.contract import Map
from iresnet_flows.maps.functions import FunctionMap
from iresnet_flows.maps.jacobians import Jacobian

__all__ = ["FunctionMap", "Jacobian", "Map"]
