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


def exported(name):
    """What `__all__` holds, or None without one."""
    for node in parsed(name).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def home(module):
    """The key of a module among `MODULES`, or None of one that is not ours."""
    package, *path = module.split(".")
    names = (f"{'/'.join(path)}.py", "/".join([*path, "__init__.py"]))
    return next((name for name in names if package == SOURCE.name and name in MODULES), None)


@each_module
def test_a_module_says_what_is_public(name):
    """But for what is a docstring alone, and the module that is run."""
    if name != "__main__.py" and len(parsed(name).body) > 1:
        assert exported(name) is not None


@each_module
def test_what_a_module_takes_from_another_is_public_there(name):
    for node in ast.walk(parsed(name)):
        if not isinstance(node, ast.ImportFrom) or not (source := home(node.module)):
            continue
        for each in (alias.name for alias in node.names):
            is_module = home(f"{node.module}.{each}") is not None
            assert is_module or each in [*exported(source), "__version__"], f"{source}: {each}"


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
