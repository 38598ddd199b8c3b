"""What a terminal shows is what was said."""

import io

import pytest

pytest.importorskip("rich", reason="the experiments need their extra")

from rich.console import Console

from iresnet_flows.experiments.terminal import budget_bars


def test_brackets_in_an_error_are_no_styles():
    shown = io.StringIO()
    with budget_bars(Console(file=shown, width=80)) as bars:
        bars.add_task("mine [x]", total=1.0, loss="ValueError: [red] [/red] [/x]")
    assert "mine [x]" in shown.getvalue()
    assert "ValueError: [red] [/red] [/x]" in shown.getvalue()
