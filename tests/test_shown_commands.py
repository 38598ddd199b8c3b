"""Every command that a page shows exists, with its options and with the names that it is given."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

typer = pytest.importorskip("typer")
for host in ("lightning", "nflows", "normflows", "pyro", "sbi", "sklearn"):
    pytest.importorskip(host)

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.bench.peers import PEERS
from iresnet_flows.experiments.commands import app
from iresnet_flows.experiments.comparison.contenders import CONTENDERS
from iresnet_flows.experiments.data import names
from iresnet_flows.experiments.data.files import SUFFIXES
from iresnet_flows.experiments.images import catalogue
from iresnet_flows.experiments.images.data import names as image_names
from iresnet_flows.experiments.posteriors.guides import GUIDES
from iresnet_flows.experiments.posteriors.npe import ESTIMATORS
from iresnet_flows.experiments.posteriors.targets import TARGETS
from iresnet_flows.experiments.studies import STUDIES, check_scale, study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = typer.main.get_command(app)
OWN = ("spline",)  # what a page makes itself
PLACES = ("DATA", "RUN", "DIR...")


def code(text):
    """Lines of blocks, fenced or indented, and what stands between backticks."""
    text = re.sub(r"\\\n|\n +(?=\[)", " ", text)  # a line that goes on in the next
    fenced = re.findall(r"```\w+\n(.*?)```", text, flags=re.DOTALL)
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return "\n".join([*fenced, *re.findall(r"^ {4}.*", rest, flags=re.MULTILINE), *spans(rest)])


def spans(text):
    return re.findall(r"`(iresnet-flows [^`\n]+)`", text)


def shown(page):
    for line in re.split(r"\n|&&", code(page.read_text(encoding="utf-8"))):
        match = re.search(r"(?:^|[\s/])iresnet-flows\)? +([a-z].*)", line)
        if match:
            yield match[1].split("#")[0].strip()


LINES = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line[:60]}")
    for page in PAGES
    for line in dict.fromkeys(shown(page))
]
SYNOPSES = [line for line in LINES if "[" in line.values[0]]
CALLS = [line for line in LINES if "[" not in line.values[0]]


@pytest.mark.parametrize("line", SYNOPSES)
def test_synopsis_names_real_options(line):
    name, first = line.split()[:2]
    known = {option for each in COMMANDS.commands[name].params for option in each.opts}
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)) <= known
    if name == "reproduce" and first != "posteriors":
        assert set(first.split("|")) <= set(STUDIES)


@pytest.mark.parametrize("line", CALLS)
def test_command_parses(line):
    name, *arguments = shlex.split(re.sub(r"\$\w+", "1", line))
    command = COMMANDS.commands[name]
    if not arguments:
        return  # it is spoken of
    given = command.make_context(name, arguments).params
    CHECKS.get(name, lambda _: None)(given)


def split(value):
    return value.split(",") if value else []


def check_compare(given):
    for data in given["data"] or ():
        assert data in names() or Path(data).suffix in SUFFIXES
    if given["models"] != "all":
        assert set(split(given["models"])) <= {*CONTENDERS, *OWN}


def check_reproduce(given):
    check_scale(given["scale"])
    if given["what"] == "posteriors":
        assert set(split(given["models"])) <= {*GUIDES, *ESTIMATORS}
        assert set(split(given["targets"])) <= set(TARGETS)
        return
    run = study(given["what"])
    known = getattr(import_module(run.__module__), "MODELS", ())
    assert set(split(given["models"])) <= set(known)


def check_training(kind):
    def check(given):
        assert given["data"] in (*image_names(), *PLACES)
        assert given["model"] in catalogue.recipes(kind, given["scale"])

    return check


def check_score(given):
    assert given["data"] in (*image_names(), *PLACES)


def check_bench(given):
    assert set(split(given["against"])) <= set(PEERS)


CHECKS = {
    "compare": check_compare,
    "reproduce": check_reproduce,
    "fit": check_training("density"),
    "classify": check_training("classifier"),
    "score": check_score,
    "bench": check_bench,
}


def test_commands_are_found():
    assert len(CALLS) > 20
    assert len(SYNOPSES) > 5


@pytest.mark.parametrize("line", ["compare digit", "reproduce table9", "bench --against nflow"])
def test_wrong_names_are_seen(line):
    with pytest.raises((AssertionError, UsageError)):
        test_command_parses(line)


@pytest.mark.parametrize("line", ["compare --seeds 1", "fit mnist --step 3"])
def test_wrong_options_are_seen(line):
    with pytest.raises(typer.TyperException, match="No such option"):
        test_command_parses(line)
