"""Table 2: what it costs a classifier to be invertible."""

from __future__ import annotations

from iresnet_flows.experiments.images.classifiers import COEFFICIENTS
from iresnet_flows.experiments.paper.classifier_tables import ErrorTable
from iresnet_flows.experiments.studies import Settings

__all__ = ["TABLE2", "study"]

TABLE2 = ErrorTable(
    name="table2",
    models=("resnet-164", "vanilla", *COEFFICIENTS, "i-revnet"),
    data={"quick": ("mnist",), "paper": ("mnist", "cifar10")},
    minutes=2.75,
    seeds={"quick": (0, 1, 2), "paper": (0, 1, 2)},
    repeated=("i-resnet", "vanilla"),
    paper={
        "mnist": {
            "vanilla": 0.38,
            "i-resnet": 0.40,
            "i-resnet-0.8": 0.42,
            "i-resnet-0.7": 0.40,
            "i-resnet-0.6": 0.42,
            "i-resnet-0.5": 0.86,
        },
        "cifar10": {
            "resnet-164": 5.50,
            "vanilla": 6.69,
            "i-resnet": 6.78,
            "i-resnet-0.8": 6.86,
            "i-resnet-0.7": 6.93,
            "i-resnet-0.6": 7.72,
            "i-resnet-0.5": 8.71,
            "i-revnet": 5.6,
        },
    },
    verified=frozenset({("cifar10", "i-revnet")}),
)


def study(settings: Settings) -> None:
    """Train the classifiers of Table 2; 12 trainings at the scale ``quick``."""
    TABLE2.study(settings)
