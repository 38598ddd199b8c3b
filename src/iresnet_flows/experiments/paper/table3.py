"""Table 3: flows as classifiers."""

from __future__ import annotations

from iresnet_flows.experiments.paper.classifier_tables import ErrorTable
from iresnet_flows.experiments.studies import Settings

__all__ = ["TABLE3", "study"]

TABLE3 = ErrorTable(
    name="table3",
    models=("glow-affine", "glow-additive", "i-resnet-glow", "i-resnet"),
    data={"quick": ("cifar10",), "paper": ("cifar10",)},
    minutes=8.5,
    seeds={"quick": (0,), "paper": (0, 1, 2)},
    repeated=(),
    paper={
        "cifar10": {
            "glow-affine": 12.63,
            "glow-additive": 12.36,
            "i-resnet-glow": 8.03,
            "i-resnet": 6.69,
        }
    },
)


def study(settings: Settings) -> None:
    """Train the classifiers of Table 3; 4 trainings at the scale ``quick``."""
    TABLE3.study(settings)
