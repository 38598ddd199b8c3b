"""Table 1 and Figure 2, small, as a person asks for them."""

import json
import math

import pytest

pytest.importorskip("lightning")
pytest.importorskip("nflows")
pytest.importorskip("plotly")

from commands import command

from iresnet_flows.experiments.comparison.contenders import chosen
from iresnet_flows.experiments.comparison.runs import contender
from iresnet_flows.experiments.paper import fig2, table1
from iresnet_flows.experiments.widths import parameters


def test_table_1_is_measured_beside_the_papers_claims(tmp_path, monkeypatch, capsys):
    asked = ("reproduce", "table1", "--models", "resnet,glow", "--minutes", 0.01, "--jobs", 1)
    assert not command(monkeypatch, *asked, "--out", tmp_path)
    resnet, glow = json.loads((tmp_path / "table1.json").read_text())["rows"]
    assert (resnet["nats"], resnet["exact_likelihood"], resnet["free_form"]) == (None, None, True)
    assert glow["analytic_inverse"] is True
    assert "yes*" in (tmp_path / "table1.md").read_text()
    assert "no density" in capsys.readouterr().out or resnet["remark"]


def test_table_1_has_the_columns_of_the_paper():
    assert [who.name for who in chosen(table1.MODELS)] == list(table1.MODELS)


def test_figure_2_sets_both_side_by_side(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fig2, "TOYS", ("two-moons", "rings"))
    asked = ("reproduce", "fig2", "--minutes", 0.005, "--jobs", 1, "--out", tmp_path)
    assert not command(monkeypatch, *asked)
    rows = json.loads((tmp_path / "fig2.json").read_text())["rows"]
    assert [(row["data"], row["model"]) for row in rows] == [
        (data, model) for data in ("two-moons", "rings") for model in fig2.SCALES["quick"]
    ]
    assert all(math.isfinite(row["nats"]) for row in rows)
    assert (tmp_path / "fig2.png").stat().st_size > 10_000
    assert "i-ResNet below Glow" in capsys.readouterr().out


def test_figure_2_is_of_two_models(tmp_path, monkeypatch, capsys):
    asked = ("reproduce", "fig2", "--models", "nice", "--out", tmp_path)
    assert command(monkeypatch, *asked) == 2
    assert "leave out --models" in capsys.readouterr().err


def test_at_the_scale_quick_both_have_the_same_depth():
    glow, i_resnet = map(contender, fig2.SCALES["quick"])
    assert len(glow.make(2, 4)._transform._transforms) == 12 * 3
    assert len(i_resnet.make(2, 4)._transform._transforms) == 12 * 2


def test_deep_twins_have_the_depth_of_the_paper_and_similar_size():
    glow, i_resnet = chosen([], fig2.SCALES["paper"])
    counts = [parameters(lambda w, who=who: who.make(2, w), who.width) for who in (glow, i_resnet)]
    assert len(glow.make(2, 4)._transform._transforms) == 300
    assert len(i_resnet.make(2, 4)._transform._transforms) == 200
    assert max(counts) < 1.1 * min(counts)
