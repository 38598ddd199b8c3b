"""How each contender is drawn: a colour, a marker and a dash pattern, the same in every report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from iresnet_flows.experiments.comparison.contenders import CONTENDERS, PAPER
from iresnet_flows.experiments.comparison.results import Result
from iresnet_flows.experiments.drawing import COLOURS

__all__ = ["Style", "styles"]

# Of matplotlib, of Plotly, and drawn in a box of 16 by 16.
SHAPES = (
    ("o", "circle", "M8 3a5 5 0 1 0 0 10a5 5 0 1 0 0-10z"),
    ("s", "square", "M3.5 3.5h9v9h-9z"),
    ("^", "triangle-up", "M8 2.5l5.5 10h-11z"),
    ("D", "diamond", "M8 2l5 6l-5 6l-5-6z"),
    ("*", "star", "M8 1.5l1.7 4.4 4.7.3-3.6 3 1.2 4.6-4-2.6-4 2.6 1.2-4.6-3.6-3 4.7-.3z"),
    ("v", "triangle-down", "M8 13.5l5.5-10h-11z"),
    ("P", "cross", "M6 3h4v3h3v4h-3v3h-4v-3h-3v-4h3z"),
    ("X", "x", "M5 2.6l3 3 3-3 2.4 2.4-3 3 3 3-2.4 2.4-3-3-3 3-2.4-2.4 3-3-3-3z"),
)
DASHES = (("-", "solid"), ("--", "dash"), ("-.", "dashdot"), (":", "dot"))

# Black would vanish on a dark page, and nothing shows on both but a grey.
BLACK, GREY = "#000000", "#7b818a"


# Ours first; then the paper's, and then those after it. A shape stands twice, filled and hollow.
PLACES = tuple(dict.fromkeys(("i-resnet", *PAPER, *CONTENDERS)))


@dataclass(frozen=True)
class Style:
    """A contender's looks; of any sixteen that follow, no two have marker and filling in common.

    Arguments:
        colour: Of Okabe and Ito's, with grey for black.
        marker: Of matplotlib.
        line: The dash pattern, of matplotlib.
        shape: The marker, of Plotly.
        dash: The dash pattern, of Plotly.
        outline: The marker as an SVG path in a box of 16 by 16.
        filled: Whether the marker is filled.
    """

    colour: str
    marker: str
    line: str
    shape: str
    dash: str
    outline: str
    filled: bool

    @property
    def symbol(self) -> str:
        """The marker with its filling, of Plotly."""
        return self.shape if self.filled else f"{self.shape}-open"

    @property
    def face(self) -> str:
        """What matplotlib fills the marker with."""
        return self.colour if self.filled else "white"


def styles(results: Iterable[Result]) -> dict[str, Style]:
    """One for each contender: known ones have theirs, others the first that are free."""
    models = dict.fromkeys(result.plan.model for result in results)
    taken = {model: PLACES.index(model) for model in models if model in PLACES}
    free = (i for i in count() if i not in taken.values())
    return {model: style(taken[model] if model in taken else next(free)) for model in models}


def style(i: int) -> Style:
    """The i-th of the looks; dashes fall back by one with each round of shapes."""
    lap, place = divmod(i, len(SHAPES))
    marker, shape, outline = SHAPES[place]
    line, dash = DASHES[(i - lap) % len(DASHES)]
    colour = COLOURS[i % len(COLOURS)].replace(BLACK, GREY)
    return Style(colour, marker, line, shape, dash, outline, filled=lap % 2 == 0)
