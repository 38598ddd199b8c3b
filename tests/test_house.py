"""The house rules that a machine can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import iresnet_flows

SOURCE = Path(iresnet_flows.__file__).parent
MODULES = {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}

# What each folder may import beside itself and the modules that import no folder.
BELOW = {
    "maps": set(),
    "lipschitz": {"maps"},
    "inverse": {"maps"},
    "logdet": {"maps"},
    "layers": set(),
    "blocks": {"maps", "lipschitz", "inverse", "logdet", "layers"},
    "models": {"maps", "lipschitz", "inverse", "logdet", "layers", "blocks"},
}
HOSTS = {"nflows", "pyro", "normflows", "zuko", "sbi", "ffjord", "bridge", "distributions"}
ABOVE = {*BELOW, *HOSTS, "experiments", "cli"}

RUN = ("cli.py", "__main__.py")

each_module = pytest.mark.parametrize("name", MODULES)


def parsed(name):
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def documented(tree):
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    return (node for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node))


def length(nodes):
    return nodes[-1].end_lineno - nodes[0].lineno + 1 if nodes else 0


@each_module
def test_a_module_is_short(name):
    """At most 300 lines, without docstrings."""
    said = sum(length(node.body[:1]) for node in documented(parsed(name)))
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) - said <= 300


@each_module
def test_a_function_is_short(name):
    """At most 40 lines, without signature and docstring."""
    tree = parsed(name)
    told = set(documented(tree))
    long = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and length(node.body[node in told :]) > 40
    ]
    assert not long


@pytest.mark.parametrize("folder", BELOW)
def test_dependencies_point_down(folder):
    for name in (name for name in MODULES if name.startswith(f"{folder}/")):
        for node in ast.walk(parsed(name)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("iresnet_flows."):
                part = node.module.split(".")[1]
                assert part in BELOW[folder] | {folder} or part not in ABOVE, f"{name}: {part}"


@each_module
def test_a_module_says_what_is_public(name):
    """But for what is a docstring alone, and the module that is run."""
    tree = parsed(name)
    if name == "__main__.py" or len(tree.body) == 1:
        return
    targets = (
        target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    )
    assert "__all__" in {target.id for target in targets if isinstance(target, ast.Name)}


@each_module
def test_only_the_commands_import_experiments(name):
    if name.startswith("experiments/") or name in RUN:
        return
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.ImportFrom):
            named = [node.module]
        else:
            named = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        assert not [each for each in named if each.startswith("iresnet_flows.experiments")]
