"""Results of comparisons that nobody has run."""

from dataclasses import replace

import numpy as np

from iresnet_flows.experiments.comparison.results import PROBES, PROPERTIES, Data, Plan, Result

TITLES = {
    "nice": "NICE",
    "realnvp": "Real-NVP",
    "glow": "Glow",
    "ffjord": "FFJORD",
    "i-resnet": "i-ResNet",
    "maf": "MAF",
    "i-revnet": "i-RevNet",
    "resnet": "ResNet",
    "spline": "Neural spline flow",
    "mine.flows:tiny": "mine.flows:tiny",
}
HELD = {
    "nice": (False, True, True, False, True, None),
    "i-revnet": (False, True, True, False, True, None),
    "realnvp": (False, True, True, True, True, None),
    "glow": (False, True, True, True, True, None),
    "ffjord": (True, False, False, True, False, True),
    "i-resnet": (True, True, False, True, True, True),
    "resnet": (True, True, None, None, None, None),
}
ROWS = 40
NO_DENSITY = "no density: nothing keeps an unconstrained ResNet invertible"


def data(name="two-moons", columns=2, discrete=False):
    names = tuple(f"x{i + 1}" for i in range(columns))
    shown = min(columns, 2)
    return Data(name, names, 800, 100, ROWS, discrete, (-2.0,) * shown, (2.0,) * shown)


def result(model="i-resnet", seed=0, nats=1.0, about=None, steps=2000, match="parameters", **rest):
    """A run of that mean test loss; what rows share and what seeds share are drawn alike."""
    about = about or data()
    plan = Plan(about.name, f"print of {about.name}", model, seed, steps, match=match)
    place = list(TITLES).index(model) + 1
    shared = np.random.default_rng(0).normal(size=ROWS)
    own = np.random.default_rng([place, seed]).normal(size=ROWS)
    rows = nats + (shared - shared.mean()) + 0.1 * (own - own.mean())
    made = Result(
        plan,
        about,
        TITLES[model],
        f"the recipe of {TITLES[model]}",
        "paper" if model in HELD else "beyond",
        f"iresnet-flows compare {about.name} --seed {seed}",
        {"python": "3.12.1", "torch": "2.13.0", "threads": "1", "machine": "x86_64"},
        width=32,
        parameters=10_000 + place,
        steps=steps,
        train_seconds=3.0 * place + seed,
        curve=[(s, s / 500 * place, nats + 40 / (1 + s)) for s in range(25, steps + 1, 25)],
        nats=nats,
        row_standard_error=float(rows.std(ddof=1) / np.sqrt(ROWS)),
        bits_per_dim=nats / about.features / np.log(2),
        properties=dict(zip(PROPERTIES, HELD.get(model, (True,) * 6), strict=True)),
        evidence={"varying_share_of_jacobian": 0.75, "solvers_loosened": place, "gone": None},
        probes=probes(place, seed),
        costs={
            "step_ms": 4.0 * place + seed,
            "log_prob_ms": 2.0 * place,
            "sample_ms": 5.0 * place,
            "peak_mb": 120.0 + place,
        },
        arrays=arrays(about, rows, place, seed),
    )
    return replace(made, **rest)


def probes(place, seed):
    values = (1e-6 * place * (seed + 1), 1e-14, 1e-3, 2e-3, 0.0, 0.97, 8.0, 80.0, True)
    return dict(zip(PROBES, values, strict=True))


def arrays(about, rows, place, seed):
    draw = np.random.default_rng([7, place, seed])
    count = 500 if about.features <= 2 else 24
    found = {
        "rows": rows,
        "truth": points(np.random.default_rng(1), count, about),
        "samples": points(draw, count, about),
        "errors": 10 ** draw.normal(-6, 0.4, 200),
    }
    if about.features == 2:
        x = np.linspace(-2.4, 2.4, 60)
        found["density"] = np.exp(-(x[:, None] ** 2) - (x[None] - 0.1 * place) ** 2)
    return found


def points(draw, count, about):
    if about.discrete:
        return draw.integers(0, 17, (count, about.features)).astype(float)
    return draw.normal(size=(count, about.features))


def without_density(seed=0, about=None):
    """An unconstrained ResNet: measured, and not a failure."""
    made = result("resnet", seed, about=about, remark=NO_DENSITY)
    kept = {name: made.arrays[name] for name in ("truth", "errors")}
    return replace(made, nats=None, row_standard_error=None, bits_per_dim=None, arrays=kept)


def failing(model="glow", seed=0, about=None):
    """A run whose loss was no number."""
    made = result(model, seed, about=about)
    keep = (made.plan, made.data, made.title, made.recipe, made.origin, made.command)
    return Result(*keep, made.versions, error="the loss became nan at step 3", steps=3)


def several(seeds=(0, 1, 2)):
    """Three data sets, several seeds, one failure, one without a density."""
    moons, digits, power = data(), data("digits", 64, discrete=True), data("power", 6)
    levels = {
        "nice": 0.9,
        "realnvp": 0.5,
        "glow": 0.32,
        "ffjord": 0.35,
        "i-resnet": 0.3,
        "maf": 0.31,
    }
    found = []
    for about, factor in ((moons, 1.0), (digits, -1.0), (power, 2.0)):
        for seed in seeds:
            runs = [
                result(model, seed, factor * level + 0.01 * seed, about)
                for model, level in levels.items()
            ]
            found += [*runs, without_density(seed, about)]
    found += [failing("spline", seed, moons) for seed in seeds]
    found += [result("mine.flows:tiny", seed, 0.45, power) for seed in seeds[:1]]
    return found
