"""What a comparison comes to: rows, standings, words and files, from results that nobody ran."""

import json
import math
import re
from dataclasses import replace
from itertools import combinations

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("plotly")
pytest.importorskip("matplotlib")
pandas = pytest.importorskip("pandas")
stats = pytest.importorskip("scipy.stats")
pytest.importorskip("typer")
rich = pytest.importorskip("rich.console")

import numpy as np
from commands import command
from comparison_cases import TITLES, data, failing, result, several, without_density

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.comparison.contenders import CONTENDERS
from iresnet_flows.experiments.comparison.findings import findings, listed, overall, remarks
from iresnet_flows.experiments.comparison.groups import grouped
from iresnet_flows.experiments.comparison.labels import PAPER, cell, differences, mark
from iresnet_flows.experiments.comparison.report import terminal_report, write_reports
from iresnet_flows.experiments.comparison.results import PROBES, PROPERTIES, Plan, found
from iresnet_flows.experiments.comparison.rows import rows
from iresnet_flows.experiments.comparison.standings import standings
from iresnet_flows.experiments.comparison.styles import styles

ROW = {
    *("model", *PROPERTIES, "evidence", "nats", "nats_standard_error", "bits_per_dim"),
    *("parameters", "train_seconds", "steps", "step_ms", "log_prob_ms", "sample_ms", "peak_mb"),
    *(*PROBES, "nats_by_seed", "failed", "nan_runs", "runs", "remark", "title", "recipe"),
    "origin",
}
ASKED = "iresnet-flows report here there"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report of three data sets, shared by the tests that read it."""
    folder = tmp_path_factory.mktemp("report")
    write_reports(several(), folder, ASKED)
    return folder


def test_rows_have_the_promised_entries_in_the_order_of_appearance():
    found = rows([result("maf"), result("glow"), result("maf", 1), failing("nice")])
    assert [row["model"] for row in found] == ["maf", "glow", "nice"]
    assert all(set(row) == ROW for row in found)


def test_a_row_pools_its_seeds():
    runs = [result("glow", seed, nats) for seed, nats in enumerate((1.0, 2.0, 6.0))]
    (row,) = rows(runs)
    assert row["nats"] == pytest.approx(3.0)
    table = np.stack([run.arrays["rows"] for run in runs])
    of_rows = table.mean(0).var(ddof=1) / table.shape[1]
    assert row["nats_standard_error"] == pytest.approx(math.sqrt(7 / 3 + of_rows))
    apart = [replace(run, arrays={}) for run in runs]
    assert rows(apart)[0]["nats_standard_error"] == pytest.approx(math.sqrt(7 / 3))
    assert row["inverse_error"] == pytest.approx(9e-6)
    assert row["step_ms"] == 13.0
    assert row["train_seconds"] == pytest.approx(10.0)
    assert row["nats_by_seed"] == {"0": 1.0, "1": 2.0, "2": 6.0}
    assert (row["runs"], row["nan_runs"], row["failed"]) == (3, 0, [])


def test_the_error_of_one_seed_is_that_over_its_rows():
    made = result()
    assert rows([made])[0]["nats_standard_error"] == made.row_standard_error


def test_a_row_counts_its_failures_and_takes_properties_from_what_is_whole():
    (row,) = rows([failing("glow", 0), result("glow", 1, 2.0)])
    assert row["failed"] == ["seed 0: the loss became nan at step 3"]
    assert (row["runs"], row["nan_runs"], row["nats"]) == (2, 1, 2.0)
    assert row["analytic_forward"] is True


def test_an_infinite_loss_is_a_failure():
    (row,) = rows([result(nats=1.0), replace(result(seed=1), nats=math.inf)])
    assert row["nats"] == 1.0
    assert row["failed"] == ["seed 1: the test loss is inf"]


def test_an_inverse_that_fails_with_one_seed_has_no_largest_error():
    broken = result(seed=1)
    broken.probes["inverse_error"] = None
    assert rows([result(), broken])[0]["inverse_error"] is None


def test_no_density_is_no_failure():
    (row,) = rows([without_density()])
    assert (row["nats"], row["failed"], row["nan_runs"]) == (None, [], 0)
    assert row["remark"].startswith("no density")
    assert cell(row, "nats") == cell(row, "bits_per_dim") == "n/a"
    assert cell(row, "step_ms") != "n/a"


def test_what_failed_is_said_to_have_failed():
    (row,) = rows([failing()])
    assert cell(row, "nats") == cell(row, "step_ms") == mark(row, "free_form") == "failed"


def test_of_one_seed_the_difference_is_that_of_a_paired_t_test():
    glow, ours = result("glow", nats=1.05), result(nats=1.0)
    found = standings([glow, ours])
    truth = stats.ttest_rel(glow.arrays["rows"], ours.arrays["rows"])
    (gap,) = found.gaps
    assert (found.model, gap.model) == ("i-resnet", "glow")
    assert gap.difference.sigmas == pytest.approx(truth.statistic)
    assert gap.p == pytest.approx(truth.pvalue)


def test_of_many_seeds_and_even_rows_it_is_a_paired_t_test_over_seeds():
    shifts = (0.1, 0.2, 0.6, 0.3)
    ours = [result(seed=seed, nats=1.0) for seed in range(4)]
    others = [
        replace(
            result("glow", seed, 1.0 + shift),
            arrays={"rows": ours[seed].arrays["rows"] + shift},
        )
        for seed, shift in enumerate(shifts)
    ]
    (gap,) = standings([*ours, *others]).gaps
    truth = stats.ttest_1samp(shifts, 0.0)
    assert gap.difference.sigmas == pytest.approx(truth.statistic, rel=1e-6)
    assert gap.p == pytest.approx(truth.pvalue, rel=1e-6)


def test_p_values_are_adjusted_over_the_contenders():
    found = standings([result(nats=1.0), result("glow", nats=1.05), result("maf", nats=1.08)])
    near, far = found.gaps
    between = next(pair for pair in found.pairs if pair.below != "i-resnet")
    raw = sorted([near.difference.p, far.difference.p, between.difference.p])
    assert far.p == pytest.approx(3 * raw[0])
    assert sorted([near.p, far.p, between.p]) == pytest.approx(
        [3 * raw[0], max(3 * raw[0], 2 * raw[1]), max(3 * raw[0], 2 * raw[1], raw[2])]
    )


def test_of_equal_contenders_a_lead_is_found_in_one_study_of_twenty_at_most():
    draw = np.random.default_rng(0)
    models = list(TITLES)[:6]
    false = 0
    for _ in range(400):
        runs = [result(model) for model in models]
        for run in runs:
            run.arrays["rows"] = draw.normal(size=40)
            run.nats = float(run.arrays["rows"].mean())
        false += any(gap.certain for gap in standings(runs).gaps)
    assert false <= 0.075 * 400  # 0.05, and what 400 draws may be off


def test_a_run_that_was_mended_elsewhere_counts(tmp_path):
    broken = replace(failing("glow"), mendable=True)
    for place, run in (("a", broken), ("b", result("glow"))):
        run.save(tmp_path / place / "runs" / run.plan.slug)
    (kept,) = found([tmp_path / "a", tmp_path / "b"])
    assert kept.error is None


def test_runs_of_several_recipes_are_not_mixed_in_silence():
    other = result("glow", 1)
    runs = [result("glow"), replace(other, plan=replace(other.plan, recipe="another"))]
    assert any("several recipes" in warning for warning in standings(runs).warnings)


def test_what_is_within_two_standard_errors_is_tied():
    level = {"i-resnet": 0.0, "glow": 0.01, "nice": 1.0}
    found = standings([result(m, s, v) for m, v in level.items() for s in range(3)])
    assert [(gap.model, gap.tied) for gap in found.gaps] == [("glow", True), ("nice", False)]
    assert all(gap.tied == (abs(gap.difference.sigmas) <= 2) for gap in found.gaps)
    assert not found.warnings


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([result("glow", 0), result(seed=1)], "share no seed"),
        ([result("glow"), replace(result(), arrays={})], "not tested on the same rows"),
        (
            [result("glow"), replace(result(), arrays={"rows": np.zeros(3)})],
            "not tested on the same rows",
        ),
        ([result("glow"), result()], "1 seed: with fewer than 3"),
        ([result("glow"), result(), replace(result(), nats=3.0)], "of several runs the first"),
    ],
)
def test_what_spoils_a_comparison_is_said(runs, said):
    assert any(said in warning for warning in standings(runs).warnings)


def test_other_rows_are_not_compared():
    changed = result("glow")
    changed = replace(changed, plan=replace(changed.plan, fingerprint="another"))
    found = standings([changed, result(nats=0.5)])
    assert not found.gaps
    assert any("have changed" in warning for warning in found.warnings)
    assert any("not tested on the same rows" in warning for warning in found.warnings)


def test_few_seeds_of_one_contender_are_its_own():
    runs = [result(m, s) for m in ("i-resnet", "glow") for s in range(3)]
    (warning,) = standings([*runs, result("nice", nats=2.0)]).warnings
    assert warning.startswith("1 seed of NICE: ")


def test_without_any_density_nobody_is_first():
    found = standings([without_density(), failing()])
    assert (found.model, found.gaps) == (None, ())
    (group,) = grouped([without_density(), failing()])
    assert findings(group)[0] == "No contender has a test loss to compare."


def test_words_are_those_of_the_numbers():
    level = {"i-resnet": 1.5, "glow": 1.0, "maf": 1.005, "nice": 2.0}
    runs = [result(m, s, v) for m, v in level.items() for s in range(3)]
    (group,) = grouped([*runs, *(failing("spline", s) for s in (0, 1))])
    told = " ".join(findings(group))
    sigmas = group.standings.gap("i-resnet").difference.sigmas
    assert "Glow reaches the lowest mean test loss, 1.000 nats." in told
    assert "MAF is tied with it" in told
    assert "i-ResNet loses here: it is 0.500 ± 0.0" in told
    assert (
        f"({sigmas:.1f} standard errors, p < 0.001 after Holm) behind Glow, place 3 of 4" in told
    )
    assert "failed in 2 of 2 runs (seeds 0 and 1: the loss became nan at step 3)" in told
    assert "Sampling takes i-ResNet 5 times as long as NICE" in told


def test_words_across_data_sets_say_where_ours_wins_and_loses():
    told = " ".join(overall(grouped(several())))
    assert "i-ResNet comes first on two-moons and loses on digits and power." in told


def test_a_contender_alone_is_not_said_to_be_first():
    alone = grouped([result("glow", about=data(name)) for name in ("two-moons", "power")])
    assert findings(alone[0])[0] == "Glow comes to a mean test loss of 1.000 nats."
    assert not overall(alone)


def test_what_must_be_known_is_said_once_and_where_it_holds():
    found = [
        result(model, about=data(name), remark=remark)
        for name in ("two-moons", "power")
        for model, remark in (("nice", "keeps volumes."), ("glow", f"matched on {name}"))
    ]
    assert list(remarks(grouped(found))) == [
        "NICE: keeps volumes.",
        "Glow: matched on two-moons (on two-moons).",
        "Glow: matched on power (on power).",
    ]


def test_rows_are_told_where_they_were_cut():
    found = []
    for name, rows_at_most in (("two-moons", 10**6), ("power", data("power").train)):
        made = result(about=data(name))
        found.append(replace(made, plan=replace(made.plan, rows=rows_at_most)))
    terms = {group.data.name: group.terms for group in grouped(found)}
    assert "rows" not in terms["two-moons"]
    assert f"on {data('power').train:,} rows each" in terms["power"]


def test_words_are_listed():
    assert [listed(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]


def test_each_measured_property_that_the_paper_has_otherwise_is_marked_and_explained():
    found = rows([result(model) for model in PAPER])
    told = list(differences(found))
    marks = sum(mark(row, name).endswith("*") for row in found for name in PROPERTIES)
    assert marks == len(told) == 3
    assert any(sentence.startswith("Glow, analytic inverse: measured yes") for sentence in told)
    assert not any("i-RevNet" in sentence or sentence.startswith("ResNet") for sentence in told)


def test_a_property_that_one_column_does_not_show_is_no_other_than_the_paper_has_it():
    (row,) = rows([result("nice")])
    row["free_form"] = None
    assert mark(row, "free_form") == "n/a"
    assert not list(differences([row]))


def test_results_are_grouped_by_data_budget_and_match():
    runs = [result(), result(steps=10), result(match="time"), result(about=data("a b"))]
    assert [group.name for group in grouped(runs)] == [
        "two-moons-2000-steps-equal-parameters",
        "two-moons-10-steps-equal-parameters",
        "two-moons-2000-steps-equal-time-of-a-step",
        "a-b-2000-steps-equal-parameters",
    ]
    assert [group.name for group in grouped([*runs[:1], *runs[3:]])] == ["two-moons", "a-b"]
    twins = [result(about=data("a b")), result(about=data("a,b")), result(about=data("a/b"))]
    assert len({group.name for group in grouped(twins)}) == 3


def test_files_of_one_name_are_apart_and_a_file_that_changed_or_moved_is_not():
    def of(path, fingerprint, seed=0):
        made = result(about=data("x.csv"), seed=seed)
        return replace(made, plan=replace(made.plan, data=path, fingerprint=fingerprint))

    here, there = of("a/x.csv", "1"), of("b/x.csv", "2")
    assert [group.title for group in grouped([here, there])] == ["a/x.csv", "b/x.csv"]
    bridging = of("a/x.csv", "2", seed=3)
    for order in ([here, there, bridging], [here, bridging, there]):
        (group,) = grouped(order)
        assert len(group.results) == 3
    moved, changed = of("z/x.csv", "1", seed=1), of("a/x.csv", "3", seed=2)
    (group,) = grouped([here, moved, changed])
    assert group.title == "x.csv"
    assert len(group.results) == 3


def test_a_contender_is_not_first_by_the_seeds_that_it_survived(tmp_path):
    hard = [result("glow", s, 1.0 + s) for s in range(3)]
    easy = result("nice", 0, 1.3)
    failed = [replace(result("nice", s), nats=None, error="diverged", arrays={}) for s in (1, 2)]
    found = standings([easy, *failed, *hard])
    assert found.model == "glow"
    (gap,) = found.gaps
    assert not gap.tied
    lucky = replace(easy, nats=0.7, arrays={"rows": easy.arrays["rows"] - 0.6})
    found = standings([lucky, *failed, *hard])
    assert found.model == "glow"
    assert not found.gaps[0].tied
    assert found.gaps[0].ahead
    assert not found.gaps[0].certain
    assert any("NICE is ahead of Glow on the seeds that both have" in w for w in found.warnings)
    (group,) = grouped([lucky, *failed, *hard])
    said = " ".join(findings(group))
    assert "Glow comes first with a mean test loss" in said
    assert "It is ahead of" not in said
    write_reports([lucky, *failed, *hard], tmp_path, ASKED)
    assert "ahead, though not in all of its runs" in (tmp_path / "report.html").read_text()


def test_one_that_failed_somewhere_and_is_a_little_lower_leaves_the_lowest_loss_unsaid():
    hard = [result("glow", s, 1.0) for s in range(3)]
    near = replace(result("nice", 0, 0.99), arrays={"rows": hard[0].arrays["rows"] - 0.01})
    noise = np.linspace(-1, 1, len(near.arrays["rows"]))
    near.arrays["rows"] = near.arrays["rows"] + noise - noise.mean()
    (group,) = grouped([near, failing("nice", 1), failing("nice", 2), *hard])
    assert group.standings.gaps[0].tied
    assert "Glow comes first with a mean test loss" in " ".join(findings(group))


def test_contenders_look_different():
    looks = list(styles(result(model) for model in TITLES).values())
    assert len({look.symbol for look in looks}) == len(TITLES)


def test_known_contenders_look_different_without_colour_and_the_same_in_every_report():
    def plain(name):
        return replace(result("glow"), plan=Plan("x", "", name, 0))

    looks = styles(map(plain, CONTENDERS))
    assert len({look.symbol for look in looks.values()}) == len(CONTENDERS)
    for one, other in combinations(looks.values(), 2):
        alike = one.colour == other.colour, one.shape == other.shape, one.dash == other.dash
        assert sum(alike) < 2
    assert styles([plain("flowcon")])["flowcon"] == looks["flowcon"]


def test_several_data_sets_have_a_folder_each_and_one_page(written):
    found = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    figures = ("curves", "cost", "inverse_error", "samples")
    expected = {"report.html", "results.csv", "results.parquet"}
    for name in ("two-moons", "digits", "power"):
        expected |= {f"{name}/table1.json", f"{name}/table1.md"}
        expected |= {f"{name}/figures/{figure}.png" for figure in figures}
    assert found == expected | {"two-moons/figures/densities.png"}


def test_one_data_set_has_no_folder_within(tmp_path):
    write_reports([result(), result("glow")], tmp_path, ASKED)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("table1.json", "table1.md", "report.html", "results.csv", "results.parquet", "figures"),
    }


def test_the_record_has_the_promised_entries(written):
    record = json.loads((written / "two-moons" / "table1.json").read_text())
    assert set(record) >= {
        *("data", "seeds", "command", "versions", "settings", "rows", "standings"),
    }
    assert record["standings"]["first"] == "i-resnet"
    assert [row["model"] for row in record["rows"]][-1] == "spline"
    assert record["rows"][-1]["nats"] is None
    assert record["command"] == ASKED


def test_the_table_in_markdown_has_every_contender_twice_and_its_notes(written):
    text = (written / "two-moons" / "table1.md").read_text()
    for title in ("i-ResNet", "ResNet", "Neural spline flow"):
        assert len(re.findall(rf"^\| {title} \|", text, flags=re.MULTILINE)) == 2
    assert "yes*" in text
    assert "the loss became nan at step 3" in text
    assert "triangular solves" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| ")}
    assert len(widths) == 2


def test_the_tidy_table_has_a_line_a_run(written):
    runs = several()
    flat = pandas.read_csv(written / "results.csv")
    columns = pandas.read_parquet(written / "results.parquet")
    assert len(flat) == len(columns) == len(runs)
    assert list(flat.columns) == list(columns.columns)
    nats = [math.nan if run.nats is None else run.nats for run in runs]
    np.testing.assert_allclose(flat["nats"], nats)
    assert {"data", "model", "seed", "budget", "match", *PROPERTIES, *PROBES} <= set(flat.columns)
    assert columns["error"].notna().sum() == 3


@pytest.mark.parametrize("runs", [[failing()], [without_density()], [result(nats=1.0)]])
def test_little_is_reported_too(runs, tmp_path):
    write_reports(runs, tmp_path, ASKED)
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert list(terminal_report(runs))


def test_data_of_one_column_and_pictures_are_drawn(tmp_path):
    runs = [result(about=data("line", 1)), result(about=data("mnist", 784, discrete=True))]
    write_reports(runs, tmp_path, ASKED)
    assert (tmp_path / "line" / "figures" / "samples.png").exists()
    assert (tmp_path / "mnist" / "figures" / "samples.png").exists()


def test_nothing_is_no_report(tmp_path):
    with pytest.raises(UsageError, match="no results"):
        write_reports([], tmp_path, ASKED)


def test_the_terminal_shows_every_column_in_eighty(capsys):
    console = rich.Console(width=80)
    for part in terminal_report(several()):
        console.print(part)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for word in ("bits/dim", "sample ms", "preserving", "likelihood", "log-det", "i-ResNet"):
        assert word in shown
    for line in shown.splitlines():
        assert "…" not in line[13:]


def test_the_command_merges_folders(tmp_path, monkeypatch, capsys):
    for place, runs in (("here", [result()]), ("there", [result("glow"), result()])):
        for run in runs:
            run.save(tmp_path / place / "runs" / run.plan.slug)
    out = tmp_path / "out"
    code = command(monkeypatch, "report", tmp_path / "here", tmp_path / "there", "--out", out)
    assert not code
    record = json.loads((out / "table1.json").read_text())
    assert [row["model"] for row in record["rows"]] == ["glow", "i-resnet"]
    assert record["command"].startswith("iresnet-flows report ")
    assert "report.html" in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_the_command_says_in_a_line_that_there_is_nothing(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    assert command(monkeypatch, "report", tmp_path / name, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "holds no results" in error
    assert error.count("\n") == 1
