"""Data: what is loaded, how it is split and scaled, and what is said about bad input."""

from __future__ import annotations

import gzip
import math
import re
import struct
import sys
from pathlib import Path

import pytest
import torch

np = pytest.importorskip("numpy")
pytest.importorskip("sklearn")

from iresnet_flows.errors import DataError, MissingExtra
from iresnet_flows.experiments.data import Dataset, bundled, datasets, load, names
from iresnet_flows.experiments.data.tables import Columns, Table

TOYS = (
    "two-moons",
    "eight-gaussians",
    "checkerboard",
    "pinwheel",
    "two-spirals",
    "rings",
    "swiss-roll",
    "circles",
)

SHAPES = {
    **dict.fromkeys(TOYS, (9600, 1200, 1200, 2)),
    "digits": (1439, 179, 179, 64),
    "breast-cancer": (457, 56, 56, 30),
    "power": (40, 10, 20, 6),
    "mnist": (50, 10, 20, 12),
}


@pytest.fixture
def power(tmp_path, monkeypatch):
    """A small stand-in for the benchmark, where the environment variable points."""
    monkeypatch.setenv("IRESNET_FLOWS_DATA", str(tmp_path))
    folder = tmp_path / "power"
    folder.mkdir()
    for part, count in {"train": 40, "validation": 10, "test": 20}.items():
        np.save(folder / f"{part}.npy", normal(count, 6))

    return folder


@pytest.fixture
def mnist(power):
    """Small images beside it: 60 for training and 20 for the test, the last column blank."""
    folder = power.parent / "mnist"
    folder.mkdir()
    for name, count in {"train": 60, "t10k": 20}.items():
        images = np.random.default_rng(count).integers(0, 256, (count, 4, 3), dtype=np.uint8)
        images[:, :, 2] = 0
        header = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())

    return folder


def normal(count: int, features: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, features))


def table(values: np.ndarray) -> Table:
    return Table("values", Columns.numbered(values.shape[1]), values.astype(np.float64))


def rows(data: Dataset) -> np.ndarray:
    """All rows of a data set, in lexicographic order."""
    values = torch.cat([data.train, data.validation, data.test]).numpy()
    return values[np.lexsort(values.T[::-1])]


def in_order(values: np.ndarray) -> np.ndarray:
    return values[np.lexsort(values.T[::-1])]


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def lines(count: int = 120, separator: str = ",") -> list[str]:
    """The lines of a sound file of two columns."""
    return [separator.join(f"{value:.6f}" for value in row) for row in normal(count, 2)]


def refuses(path: str, *parts: str) -> None:
    """The file is refused in one line that names it and holds these parts."""
    with pytest.raises(DataError) as caught:
        load(path)

    message = str(caught.value)
    assert "\n" not in message
    for part in (path, *parts):
        assert part in message


# The built-in sets


def test_the_names_are_those_of_the_shapes():
    assert names() == tuple(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_built_in_set_has_its_shape(name, mnist):
    data = load(name)
    train, validation, test, features = SHAPES[name]

    assert data.name == name
    assert data.features == len(data.columns) == features
    assert data.train.shape == (train, features)
    assert data.validation.shape == (validation, features)
    assert data.test.shape == (test, features)
    assert (data.discrete == (name in ("digits", "mnist"))).all()
    assert data.prepare(data.train).dtype == torch.float32


@pytest.mark.parametrize("name", SHAPES)
def test_data_and_split_are_the_same_whatever_the_random_state(name, mnist):
    first = load(name)
    torch.manual_seed(7)
    np.random.seed(7)
    second = load(name)

    for part in ("train", "validation", "test", "mean", "std"):
        assert torch.equal(getattr(first, part), getattr(second, part))


@pytest.mark.parametrize("name", TOYS)
def test_the_parts_of_a_toy_follow_one_distribution(name):
    data = load(name)
    error = data.std / math.sqrt(len(data.test)) + data.std / math.sqrt(len(data.train))

    assert ((data.test.mean(0) - data.mean).abs() < 4 * error).all()


def test_the_toys_lie_where_their_definitions_say():
    checkers = torch.div(load("checkerboard").train, 2, rounding_mode="floor").sum(1)
    assert (checkers % 2 == 0).all()

    radii = load("rings").train.norm(dim=1)
    nearest = (radii / 0.75).round().clamp(1, 4) * 0.75
    assert (radii - nearest).std() < 0.1
    assert set((nearest / 0.75).tolist()) == {1.0, 2.0, 3.0, 4.0}

    points = load("eight-gaussians").train * math.sqrt(2)
    angles = torch.arange(8) * math.pi / 4
    centres = 4 * torch.stack([angles.cos(), angles.sin()], dim=1).double()
    distance = torch.cdist(points, centres).amin(1)
    assert distance.square().mean().sqrt() == pytest.approx(0.5 * math.sqrt(2), rel=0.03)


def test_power_is_looked_for_in_the_folder_given_first(power, tmp_path, monkeypatch):
    monkeypatch.setenv("IRESNET_FLOWS_DATA", "/nowhere")

    assert load("power", data_dir=tmp_path).train.shape == (40, 6)
    assert bundled.data_folder(None) == Path("/nowhere")
    monkeypatch.delenv("IRESNET_FLOWS_DATA")
    assert bundled.data_folder(None) == Path.home() / ".cache" / "iresnet_flows"


def test_pixels_of_mnist_are_whole_numbers_and_keep_the_test_images_apart(mnist):
    data = load("mnist")
    images = np.frombuffer((mnist / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)

    assert data.columns[:4] == ("pixel 0,0,0", "pixel 0,0,1", "pixel 0,0,2", "pixel 0,1,0")
    assert (data.test.flatten().numpy() == images).all()
    assert torch.allclose(data.std[2::3], torch.tensor(1 / 12, dtype=torch.float64).sqrt())
    assert torch.isfinite(data.prepare(data.train)).all()
    assert data.bits_per_dim(12 * math.log(256)) == pytest.approx(8)


def test_images_may_be_packed_and_their_absence_is_told(mnist):
    before = load("mnist")
    for path in list(mnist.iterdir()):
        mnist.joinpath(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert torch.equal(load("mnist").train, before.train)

    (mnist / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"mnist: no t10k-images-idx3-ubyte in .*mnist: put train"):
        load("mnist")


# The split


def test_the_split_uses_each_row_once(tmp_path):
    values = normal(205, 3)
    np.save(tmp_path / "a.npy", values)
    data = load(str(tmp_path / "a.npy"))

    assert [len(part) for part in (data.train, data.validation, data.test)] == [165, 20, 20]
    assert np.array_equal(rows(data), in_order(values))


def test_the_permutation_is_the_published_one():
    data = datasets.split("numbered", table(np.arange(100.0)[:, None]), discrete=True)

    assert data.test[:, 0].tolist() == [26, 86, 2, 55, 75, 93, 16, 73, 54, 95]


def test_statistics_are_those_of_the_training_rows_alone():
    values = normal(200, 3)
    data = datasets.split("before", table(values), discrete=False)

    order = np.random.RandomState(0).permutation(200)
    values[order[:40]] *= 1000
    changed = datasets.split("after", table(values), discrete=False)

    assert not torch.equal(data.test, changed.test)
    assert not torch.equal(data.validation, changed.validation)
    assert torch.equal(data.mean, changed.mean)
    assert torch.equal(data.std, changed.std)


def test_prepared_training_rows_are_standardised():
    data = load("breast-cancer")
    z = data.prepare(data.train).double()

    assert z.mean(0).abs().max() < 1e-6
    assert (z.std(0, unbiased=False) - 1).abs().max() < 1e-6


# Units


@pytest.mark.parametrize("name", ["two-moons", "digits", "breast-cancer"])
def test_log_scale_is_minus_the_log_det_of_prepare(name):
    data = load(name)
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: data.prepare(x[None], generator)[0].double(), data.train[0]
    )

    assert torch.equal(jacobian, torch.diag(jacobian.diag()))
    assert -torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(data.log_scale, rel=1e-6)


def test_nats_of_a_normal_law_change_units_by_log_scale():
    data = datasets.split("wide", table(3 + 50 * normal(1000, 2)), discrete=False)
    z = data.prepare(data.test).double()
    model = torch.distributions.Normal(torch.zeros(2).double(), torch.ones(2).double())
    truth = torch.distributions.Normal(data.mean, data.std)

    nats = -model.log_prob(z).sum(1) + data.log_scale
    assert torch.allclose(nats, -truth.log_prob(data.test).sum(1), atol=1e-5)


def test_bits_per_dim_of_a_fair_coin_in_each_column_is_one():
    data = load("digits")

    assert data.bits_per_dim(64 * math.log(2)) == pytest.approx(1)


def test_moments_of_whole_numbers_are_those_of_their_noisy_copies():
    data = load("digits")
    generator = torch.Generator().manual_seed(0)
    z = torch.cat([data.prepare(data.train, generator) for _ in range(200)]).double()

    count = math.sqrt(len(z))
    squares = z.square()
    assert (z.mean(0).abs() < 5 * z.std(0) / count).all()
    assert ((squares.mean(0) - 1).abs() < 5 * squares.std(0) / count).all()


def test_noise_of_whole_numbers_is_uniform_and_ruled_by_its_generator():
    data = load("digits")
    x = data.train[:500]
    first, second, third = (
        data.prepare(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    noise = first.double() * data.std + data.mean - x
    counts = torch.histc(noise, bins=10, min=0, max=1)
    expected = noise.numel() / 10

    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert noise.min() >= 0 and noise.max() < 1
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


def test_noise_without_a_generator_follows_the_global_seed():
    data = load("digits")
    torch.manual_seed(3)
    first = data.prepare(data.test)
    torch.manual_seed(3)

    assert torch.equal(first, data.prepare(data.test))
    assert not torch.equal(first, data.prepare(data.test))


def test_restore_undoes_prepare_exactly_for_whole_numbers():
    data = load("digits")

    for _ in range(30):
        assert torch.equal(data.restore(data.prepare(data.train)), data.train)


def test_restore_undoes_prepare_exactly_for_the_largest_whole_numbers():
    values = np.random.default_rng(0).integers(-(2**20), 2**20, size=(2000, 2))
    data = datasets.split("large", table(values), discrete=True)

    assert torch.equal(data.restore(data.prepare(data.train)), data.train)


def test_restore_clips_whole_numbers_to_the_range_of_training():
    data = load("digits")
    extreme = data.restore(torch.full((1, 64), 1e6))

    assert torch.equal(extreme[0], data.train.amax(0))
    assert torch.equal(data.restore(torch.full((1, 64), -1e6))[0], data.train.amin(0))


@pytest.mark.parametrize("name", ["rings", "breast-cancer"])
def test_restore_undoes_prepare_up_to_float32(name):
    data = load(name)
    error = (data.restore(data.prepare(data.test)) - data.test).abs()

    assert (error <= 1e-6 * data.std * (1 + ((data.test - data.mean) / data.std).abs())).all()


def test_a_large_offset_does_not_cost_digits(tmp_path):
    values = normal(200, 1)
    np.save(tmp_path / "offset.npy", 1e9 + values)
    np.save(tmp_path / "plain.npy", values)
    offset, plain = load(str(tmp_path / "offset.npy")), load(str(tmp_path / "plain.npy"))

    assert torch.allclose(offset.prepare(offset.test), plain.prepare(plain.test), atol=1e-6)


def test_rows_of_another_width_are_refused():
    data = load("rings")

    with pytest.raises(DataError, match=re.escape("rings: rows must be of shape (*, 2)")):
        data.prepare(torch.zeros(5, 3))
    with pytest.raises(DataError, match=re.escape("got (2,)")):
        data.restore(torch.zeros(2))


# Files


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", [None, ("age", "income")])
def test_csv_is_read_with_any_separator_and_with_or_without_header(tmp_path, separator, header):
    text = ([separator.join(header)] if header else []) + lines(separator=separator)
    data = load(write(tmp_path / "people.csv", text))

    assert data.name == "people.csv"
    assert data.columns == (header or ("x1", "x2"))
    assert not data.discrete.any()
    assert np.allclose(rows(data), in_order(normal(120, 2)), atol=1e-6)


def test_csv_may_have_blank_lines_quotes_spaces_and_a_byte_order_mark(tmp_path):
    text = ["\ufeff", '"a, or so", b', "", '"1.5", 2', "   ", *lines(), ""]
    data = load(write(tmp_path / "odd.csv", text))

    assert data.columns == ("a, or so", "b")
    assert rows(data).shape == (121, 2)


def test_a_file_may_have_one_column(tmp_path):
    data = load(write(tmp_path / "one.csv", ["age", *(f"{v[0]:.5f}" for v in normal(120, 1))]))

    assert data.features == 1
    assert data.train.shape == (96, 1)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "uint8", "bool"])
def test_npy_of_any_real_type_is_read(tmp_path, dtype):
    values = np.random.default_rng(0).random((120, 2)) * 1.9
    values = values > 1 if dtype == "bool" else values.astype(dtype)
    np.save(tmp_path / "a.npy", values)
    data = load(str(tmp_path / "a.npy"))

    assert data.columns == ("x1", "x2")
    assert np.array_equal(rows(data), in_order(values.astype("float64")))
    assert (data.discrete == (dtype not in ("float64", "float32", "float16"))).all()


def test_parquet_is_read_without_the_index_of_pandas(tmp_path):
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    values = normal(120, 2)
    frame = pandas.DataFrame(values, columns=["age", "income"])
    frame[::-1].to_parquet(tmp_path / "a.parquet")
    data = load(str(tmp_path / "a.parquet"))

    assert data.columns == ("age", "income")
    assert np.array_equal(rows(data), in_order(values))


def test_a_column_of_whole_numbers_is_discrete_and_one_fraction_makes_it_continuous(tmp_path):
    values = np.random.default_rng(0).integers(0, 9, size=(120, 2)).astype(float)
    np.save(tmp_path / "whole.npy", values)
    values[0, 0] = 0.5
    np.save(tmp_path / "mixed.npy", values)

    assert load(str(tmp_path / "whole.npy")).discrete.tolist() == [True, True]
    assert load(str(tmp_path / "mixed.npy")).discrete.tolist() == [False, True]


def test_of_mixed_columns_those_of_whole_numbers_alone_are_dequantised():
    rng = np.random.default_rng(0)
    values = np.stack((rng.normal(3, 2, 4000), rng.integers(0, 2, 4000)), 1)
    data = datasets.split("mixed", table(values), np.array([False, True]))
    plain = datasets.split("plain", table(values), discrete=False)

    z = data.prepare(data.train)
    assert torch.equal(z[:, 0], plain.prepare(plain.train)[:, 0])
    u = z[:, 1].double() * data.std[1] + data.mean[1] - data.train[:, 1]
    assert 0 <= u.min() < 0.01
    assert 0.99 < u.max() < 1
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=0.03, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(2), atol=0.03, rtol=0)
    restored = data.restore(z)
    assert torch.equal(restored[:, 1], data.train[:, 1])
    torch.testing.assert_close(restored[:, 0], data.train[:, 0], rtol=1e-5, atol=1e-5)


def test_a_suffix_may_be_in_capitals_and_a_path_may_be_an_object(tmp_path):
    write(tmp_path / "A.CSV", lines())

    assert load(tmp_path / "A.CSV").features == 2


# Bad input

NAMES = {
    "two-moon": "did you mean 'two-moons'?",
    "Two_Moons": "did you mean 'two-moons'?",
    "digit": "did you mean 'digits'?",
    "xyzzy": "Known: two-moons,",
    "": "unknown data ''",
}

TEXTS = {
    "empty": ([], "empty: a data file needs rows"),
    "blank": (["", "  ", ""], "empty: a data file needs rows"),
    "header only": (["age,income", ""], "only a header, no rows of data below row 1"),
    "short row": ([*lines(), "1.0"], "row 121 has 1 field where row 1 has 2: give every row"),
    "long row": (["a,b", *lines(), "1,2,3"], "row 122 has 3 fields where row 1 has 2"),
    "long rows": (["a,b", *["1,2,3"] * 120], "row 2 has 3 fields where row 1 has 2"),
    "word": (["a,b", *lines(), "1,red"], "row 122, column 'b' is 'red', not a number: correct it"),
    "word, no header": ([*lines(), "red,1"], "row 121, column 1 is 'red', not a number"),
    "word after a blank line": (["a,b", "", *lines(), "1,red"], "row 123, column 'b' is 'red'"),
    "word in the first row": (["red,1", *lines()], "row 1, column 1 is 'red', not a number: corr"),
    "underscore": (["a,b", *lines(), "1,1_0"], "row 122, column 'b' is '1_0', not a number"),
    "gap": (["a,b", *lines(), ",1"], "row 122, column 'a' is empty: fill the gap or remove"),
    "decimal comma": (["a;b", "1,5;2,5"], "'1,5', with a decimal comma: write it with a decimal"),
    "NaN": (["a,b", *lines(), "1,nan"], "row 122, column 'b' is NaN: fill the gap or remove"),
    "infinity": (["a,b", *lines(), "-inf,1"], "row 122, column 'a' is infinite: correct the en"),
    "too large": (["a,b", *lines(), "1e39,1"], "row 122, column 'a' is 1e+39, beyond the range"),
    "nameless": ([",a", *lines()], "column 1 has no name: name it in the header, or remove it if"),
    "few rows": (["a,b", *lines(57)], "57 rows, but a split into 80/10/10", "at least 100: add"),
    "constant": (
        ["age,b", *(f"3.0,{i / 7}" for i in range(120))],
        "column 'age' is constant (3.0)",
    ),
    "constant, whole": (["age,b", *(f"3,{i}" for i in range(120))], "constant (3.0): remove it"),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_name_is_answered_with_the_nearest(name):
    with pytest.raises(DataError) as caught:
        load(name)

    assert f"unknown data {name!r}" in str(caught.value)
    assert NAMES[name] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", TEXTS)
def test_a_bad_csv_is_refused_with_place_and_remedy(tmp_path, case):
    text, *parts = TEXTS[case]

    refuses(write(tmp_path / "bad.csv", text), *parts)


def test_what_is_no_text_in_utf_8_is_refused(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text("ä,b\n1,2\n", encoding="utf-16")

    refuses(str(path), "save it as CSV in UTF-8")


def test_a_field_without_end_is_refused(tmp_path):
    refuses(write(tmp_path / "bad.csv", ["a,b", "1," + "9" * 200_000]), "not readable as CSV")


def test_a_missing_file_a_folder_and_an_unknown_suffix_are_refused(tmp_path):
    refuses(str(tmp_path / "no.csv"), "no such file", "check the path")
    refuses("~nobody-at-all/no.csv", "no such file")
    refuses(str(tmp_path), "a folder: name one file in it (.csv, .npy, .parquet)")
    refuses(write(tmp_path / "a.xlsx", lines()), "cannot read .xlsx: use .csv, .npy, .parquet")
    refuses(write(tmp_path / "a", lines()), "cannot read a file without suffix")
    refuses(str(tmp_path / ("a" * 5000 + ".csv")), "no such file")


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".parquet"])
def test_a_file_that_may_not_be_read_is_refused(tmp_path, suffix, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / f"a{suffix}", lines())
    monkeypatch.setattr(Path, "open", refuse)

    refuses(path, "cannot be read (Permission denied): check its permissions")


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_file_of_another_kind_or_an_empty_one_is_refused(tmp_path, suffix):
    pytest.importorskip("pyarrow")

    refuses(write(tmp_path / f"text{suffix}", lines()), "")
    (tmp_path / f"empty{suffix}").touch()
    refuses(str(tmp_path / f"empty{suffix}"), "empty: a data file needs rows")


@pytest.mark.parametrize("keep", [3, 9, 60, 400])
def test_a_truncated_npy_is_refused(tmp_path, keep):
    np.save(tmp_path / "a.npy", normal(200, 2))
    path = tmp_path / "cut.npy"
    path.write_bytes((tmp_path / "a.npy").read_bytes()[:keep])

    refuses(str(path), "write")


@pytest.mark.parametrize(
    ("array", "parts"),
    {
        "complex": (normal(200, 2) * 1j, ("complex128", "convert it to float64")),
        "strings": (np.full((200, 2), "a"), ("<U1", "convert it to float64")),
        "objects": (np.full((200, 2), None), ("Python objects", "numpy.save")),
        "dates": (np.zeros((200, 2), "datetime64[s]"), ("datetime64",)),
        "one axis": (normal(200, 2)[:, 0], ("shape (200,)", "reshape")),
        "three axes": (np.zeros((200, 2, 2)), ("shape (200, 2, 2)", "array.reshape(len(array)")),
        "no axis": (np.array(3.0), ("shape ()",)),
        "no columns": (np.zeros((200, 0)), ("shape (200, 0)",)),
        "no rows": (np.zeros((0, 2)), ("0 rows", "at least 100")),
        "one row": (np.zeros((1, 2)), ("1 rows", "at least 100")),
        "NaN": (np.where(np.eye(200, 2), np.nan, 1), ("row 1, column 1 is NaN",)),
        "infinite": (np.where(np.eye(200, 2), 1, -np.inf), ("row 1, column 2 is infinite",)),
        "large": (normal(200, 2) * 1e40, ("row 1, column 1", "float32", "rescale")),
        "huge": (normal(200, 2).astype("longdouble") * 1e200 * 1e200, ("row 1, column 1 is",)),
        "constant": (np.full((200, 1), 2.5), ("column 1 is constant (2.5): remove it",)),
        "narrow": (1e6 + 1e-9 * normal(200, 1), ("column 1 is too narrow for float64",)),
    }.values(),
)
def test_an_array_that_is_no_table_of_numbers_is_refused(tmp_path, array, parts):
    np.save(tmp_path / "a.npy", array)

    refuses(str(tmp_path / "a.npy"), *parts)


def test_an_archive_under_the_name_of_an_array_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=normal(200, 2))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")

    refuses(str(tmp_path / "a.npy"), "an archive of arrays")


def test_a_column_that_is_constant_where_the_model_learns_is_refused(tmp_path):
    values = normal(200, 1)
    values[np.random.RandomState(0).permutation(200)[40:]] = 2.5
    np.save(tmp_path / "a.npy", values)

    refuses(str(tmp_path / "a.npy"), "constant (2.5) in the training rows: remove it")


@pytest.mark.parametrize(
    ("column", "parts"),
    {
        "strings": (["red"] * 120, ("column 'b' holds", "string", "remove or encode it")),
        "lists": ([[1.0]] * 120, ("column 'b' holds list",)),
        "gap": ([1.0, 2.0, None] * 40, ("row 3, column 'b' is NaN",)),
        "nothing": ([None] * 120, ("column 'b' holds null",)),
        "infinite": ([1.0, math.inf] * 60, ("row 2, column 'b' is infinite",)),
        "constant": ([3.0] * 120, ("column 'b' is constant (3.0)",)),
    }.values(),
)
def test_a_parquet_column_that_is_not_of_numbers_is_refused(tmp_path, column, parts):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"a": normal(120, 1)[:, 0], "b": column}), path)

    refuses(str(path), *parts)


def test_the_benchmark_that_is_missing_or_incomplete_says_where_it_was_looked_for(power):
    (power / "test.npy").unlink()
    with pytest.raises(DataError, match=r"power: no test.npy in .*power: put train.npy, valid"):
        load("power")

    np.save(power / "test.npy", normal(20, 5))
    with pytest.raises(DataError, match=r"differ in their number of columns \(train 6, valid"):
        load("power")

    np.save(power / "test.npy", normal(9, 6))
    with pytest.raises(DataError, match=r"test.npy: 9 rows, but each part .* at least 10"):
        load("power")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("two-moons", "sklearn.datasets", "scikit-learn"),
        ("digits", "sklearn.datasets", "scikit-learn"),
        ("file", "pyarrow", "pyarrow"),
    ],
)
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    given = write(tmp_path / "a.parquet", lines()) if name == "file" else name

    with pytest.raises(MissingExtra, match=rf"{package} .*'experiments'.*pip install"):
        load(given)
