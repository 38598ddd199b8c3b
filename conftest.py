"""Leaves out the examples of modules whose host is not installed."""

from importlib.util import find_spec

SOURCE = "src/iresnet_flows"
HOSTS = ("nflows", "pyro", "normflows", "zuko", "torchdiffeq")
EXPERIMENTS = (
    *("nflows", "torchdiffeq", "lightning", "typer", "sklearn", "pandas", "jinja2", "plotly"),
    *("pyro", "sbi", "scipy"),
)
NEEDS = {
    "nflows.py": ("nflows",),
    "pyro.py": ("pyro",),
    "normflows.py": ("normflows",),
    "zuko.py": ("zuko",),
    "sbi.py": ("sbi",),
    "ffjord.py": ("torchdiffeq",),
    "bridge": HOSTS,
    "experiments": EXPERIMENTS,
}


def lack(packages: tuple[str, ...]) -> bool:
    return any(find_spec(package) is None for package in packages)


collect_ignore = [f"{SOURCE}/{name}" for name, packages in NEEDS.items() if lack(packages)]
if lack(EXPERIMENTS):
    names = ("comparison_cases", "foreign_cases", "trained_ranks")
    collect_ignore += [f"tests/{name}.py" for name in names]
