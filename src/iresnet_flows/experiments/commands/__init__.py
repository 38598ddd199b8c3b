"""The commands: arguments in, one call, files out."""

from iresnet_flows.experiments.commands import bench, compare, fit, report, reproduce, use
from iresnet_flows.experiments.commands.app import app

__all__ = ["app", "bench", "compare", "fit", "report", "reproduce", "use"]
