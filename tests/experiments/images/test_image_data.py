"""Readers of image files and folders: what is read, and what is refused in one line."""

from __future__ import annotations

import gzip
import struct
import sys
import types

import pytest
import torch

np = pytest.importorskip("numpy")
pytest.importorskip("nflows")
pytest.importorskip("sklearn")

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.data.idx import read_idx, read_idx_images
from iresnet_flows.experiments.images.cifar import CIFAR10, CIFAR100, read_cifar
from iresnet_flows.experiments.images.data import load_images
from iresnet_flows.experiments.images.sets import Images, split

DRAWS = np.random.default_rng(0)


def pixels(*shape):
    return DRAWS.integers(0, 256, shape).astype(np.uint8)


def idx(array, code=8):
    return struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape) + array.tobytes()


def records(count, labels=1, classes=10):
    head = DRAWS.integers(0, classes, (count, labels)).astype(np.uint8)
    return np.concatenate([head, pixels(count, 3072)], 1)


def write_mnist(folder, suffix="", shape=(4, 4), counts=(30, 10), names=("train", "t10k")):
    """Idx files of so many training and test images; the arrays that are in them."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, count in zip(names, counts, strict=True):
        labels = (np.arange(count) % 3).astype(np.uint8)
        for kind, array in (("images-idx3", pixels(count, *shape)), ("labels-idx1", labels)):
            path = folder / f"{name}-{kind}-ubyte{suffix}"
            path.write_bytes(gzip.compress(idx(array)) if suffix else idx(array))
            arrays[path] = array
    return arrays


def write_cifar10(folder, counts=(4, 4, 4, 4, 4, 6)):
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    arrays = {name: records(count) for name, count in zip(names, counts, strict=True)}
    for name, array in arrays.items():
        (folder / name).write_bytes(array.tobytes())
    return arrays


def refuses(call, *parts):
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message


@pytest.fixture(autouse=True)
def _no_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_read_from_its_idx_files(tmp_path, suffix):
    train, _, test, _ = write_mnist(tmp_path / "mnist", suffix).values()
    data = load_images("mnist", tmp_path)
    assert data.shape == (1, 4, 4)
    assert data.classes == 10
    assert len(data.train), len(data.validation) == (27, 3)
    assert torch.equal(data.test.pixels, torch.from_numpy(test)[:, None])
    assert data.test.labels.tolist() == [number % 3 for number in range(10)]

    found = torch.cat([data.train.pixels, data.validation.pixels]).flatten(1)
    assert sorted(found.tolist()) == sorted(train.reshape(30, -1).tolist())


def test_folder_is_found_by_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist")
    monkeypatch.setenv("IRESNET_FLOWS_DATA", str(tmp_path))
    assert len(load_images("mnist").test) == 10


@pytest.mark.parametrize("within", ["cifar-10-batches-bin", ""])
def test_cifar10_is_read_from_its_binary_files(tmp_path, within):
    arrays = write_cifar10(tmp_path / "cifar10" / within)
    data = load_images("cifar10", tmp_path)
    assert data.shape == (3, 32, 32)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)
    test = arrays["test_batch.bin"]
    assert torch.equal(data.test.labels, torch.from_numpy(test[:, 0]).long())
    assert data.test.pixels[5, 2, 1, 7] == test[5, 1 + 2 * 1024 + 32 + 7]


def test_cifar100_has_its_fine_labels(tmp_path):
    folder = tmp_path / "cifar100" / "cifar-100-binary"
    folder.mkdir(parents=True)
    array = records(5, labels=2, classes=20)
    array[:, 1] = [99, 0, 1, 2, 3]
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(array.tobytes())
    data = load_images("cifar100", tmp_path)
    assert data.classes == 100
    assert data.test.labels.tolist() == [99, 0, 1, 2, 3]
    assert torch.equal(
        data.test.pixels.flatten(1), torch.from_numpy(np.ascontiguousarray(array[:, 2:]))
    )


def test_format_of_a_binary_file_is_told_by_its_size(tmp_path):
    for known, labels in ((CIFAR10, 1), (CIFAR100, 2)):
        path = tmp_path / "some.bin"
        path.write_bytes(records(3, labels).tobytes())
        assert len(read_cifar(path)) == 3
        assert len(read_cifar(path, known)) == 3


SHAPES = {
    "grey, not square": ((5, 7), (1, 5, 7)),
    "channels first": ((3, 5, 7), (3, 5, 7)),
    "channels last": ((5, 7, 3), (3, 5, 7)),
    "two channels, last": ((6, 4, 2), (2, 6, 4)),
    "all alike, so channels first": ((3, 3, 3), (3, 3, 3)),
}


@pytest.mark.parametrize(("stored", "shape"), SHAPES.values(), ids=SHAPES)
def test_folder_of_the_user_may_hold_images_of_any_shape(tmp_path, stored, shape):
    arrays = write_mnist(tmp_path / "mine", shape=stored, names=("train", "test"))
    data = load_images(tmp_path / "mine")
    assert data.shape == shape
    assert data.classes == 3
    assert data.name == "mine"
    test = torch.from_numpy(arrays[tmp_path / "mine" / "test-images-idx3-ubyte"])
    if len(stored) == 3 and stored != shape:
        test = test.permute(0, 3, 1, 2)
    assert torch.equal(data.test.pixels, test.reshape(10, *shape))


def test_folder_of_the_user_may_hold_binary_files(tmp_path):
    (tmp_path / "train_1.bin").write_bytes(records(12).tobytes())
    (tmp_path / "test.bin").write_bytes(records(5).tobytes())
    data = load_images(tmp_path)
    assert (len(data.train), len(data.validation), len(data.test)) == (11, 1, 5)


def test_split_is_the_same_each_time(tmp_path):
    write_mnist(tmp_path / "mnist")
    one, other = load_images("mnist", tmp_path), load_images("mnist", tmp_path)
    assert torch.equal(one.train.pixels, other.train.pixels)
    assert len(one.all_for_training().train) == 30
    assert len(one.subset(train=7, test=2).train) == 7


def test_validation_part_has_at_most_5000_images():
    images = Images(torch.zeros(60_000, 1, 1, 1, dtype=torch.uint8), torch.arange(60_000) % 10)
    data = split("mnist", images, images[:0], classes=10)
    assert (len(data.train), len(data.validation)) == (55_000, 5_000)


def test_missing_set_names_the_folder_and_the_files(tmp_path):
    refuses(
        lambda: load_images("mnist", tmp_path),
        tmp_path / "mnist",
        "train-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        "--data-dir",
    )
    refuses(
        lambda: load_images("cifar10", tmp_path),
        tmp_path / "cifar10" / "cifar-10-batches-bin",
        "data_batch_5.bin",
        "test_batch.bin",
    )


def test_missing_file_of_a_set_is_the_one_that_is_named(tmp_path):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").unlink()
    refuses(lambda: load_images("mnist", tmp_path), "no t10k-labels-idx1-ubyte in")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_truncated_idx_file_is_named_with_both_sizes(tmp_path, suffix):
    write_mnist(tmp_path / "mnist", suffix)
    path = tmp_path / "mnist" / f"train-images-idx3-ubyte{suffix}"
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    refuses(lambda: load_images("mnist", tmp_path), path, "expected 496 bytes", "found ")
    if not suffix:
        refuses(lambda: load_images("mnist", tmp_path), "found 436")


def test_idx_file_with_bytes_too_many_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(idx(pixels(2, 3)) + b"more")
    refuses(lambda: read_idx(path), path, "expected 18", "found 22")


@pytest.mark.parametrize("content", [b"\0\0\x08", b"\x89PNG\r\n", idx(pixels(3), code=13)])
def test_wrong_magic_number_is_refused(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    refuses(lambda: read_idx(path), path, "00 00 08")


def test_header_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(idx(pixels(2, 3))[:7])
    refuses(lambda: read_idx(path), path, "expected 12 bytes", "found 7")


def test_array_that_is_no_image_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(idx(pixels(4)))
    refuses(lambda: read_idx_images(path), path, "three dimensions")


def test_file_that_is_not_packed_as_its_name_says_is_refused(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(idx(pixels(4)))
    refuses(lambda: read_idx(path), path, "cannot be unpacked")


def test_labels_and_images_of_different_counts_are_refused(tmp_path):
    write_mnist(tmp_path / "mnist")
    path = tmp_path / "mnist" / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.zeros(9, np.uint8)))
    refuses(lambda: load_images("mnist", tmp_path), path, "10 images", "9 labels")


def test_a_folder_of_images_need_not_have_labels(tmp_path):
    train, _, test, _ = write_mnist(tmp_path).values()
    for path in tmp_path.glob("*labels*"):
        path.unlink()
    data = load_images(tmp_path)
    assert not data.classes
    assert not data.train.labelled
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 10)
    assert (data.test.pixels[:, 0].numpy() == test).all()
    assert data.train.pixels.sum() + data.validation.pixels.sum() == train.sum(dtype=int)


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_labels_of_one_part_only_are_refused(tmp_path, part):
    write_mnist(tmp_path / "mine")
    (tmp_path / "mine" / f"{part}-labels-idx1-ubyte").unlink()
    refuses(lambda: load_images(tmp_path / "mine"), "mine: labels of", "both, or none")


def test_a_built_in_set_without_its_labels_is_missing_them(tmp_path):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").unlink()
    refuses(lambda: load_images("mnist", tmp_path), "no train-labels-idx1-ubyte in")


def test_labels_out_of_range_are_refused(tmp_path):
    write_mnist(tmp_path / "mnist")
    path = tmp_path / "mnist" / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.arange(5, 15).astype(np.uint8)))
    refuses(lambda: load_images("mnist", tmp_path), "label 10 of image 5", "0 to 9")


def test_test_image_of_a_class_that_was_not_trained_is_refused(tmp_path):
    write_mnist(tmp_path / "mine")
    path = tmp_path / "mine" / "t10k-labels-idx1-ubyte"
    path.write_bytes(idx(np.full(10, 3, np.uint8)))
    refuses(lambda: load_images(tmp_path / "mine"), "label 3", "0 to 2")


@pytest.mark.parametrize("count", [0, 100, 3 * 3073 - 1])
def test_truncated_binary_file_is_named_with_both_sizes(tmp_path, count):
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    write_cifar10(folder)
    path = folder / "data_batch_3.bin"
    path.write_bytes(bytes(count))
    refuses(lambda: load_images("cifar10", tmp_path), path, "3073", f"found {count}")


def test_binary_file_of_no_known_records_is_refused(tmp_path):
    (tmp_path / "train.bin").write_bytes(bytes(5000))
    (tmp_path / "test.bin").write_bytes(bytes(5000))
    refuses(lambda: load_images(tmp_path), "train.bin", "3074", "found 5000", "idx files")


def test_label_out_of_range_in_a_binary_file_is_refused(tmp_path):
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    write_cifar10(folder)
    array = records(2)
    array[1, 0] = 10
    (folder / "data_batch_2.bin").write_bytes(array.tobytes())
    refuses(lambda: load_images("cifar10", tmp_path), "data_batch_2.bin", "label 10 of image 1")


def test_unknown_name_is_answered_with_the_nearest():
    refuses(lambda: load_images("mnst"), "did you mean 'mnist'")
    refuses(lambda: load_images("cifar-10"), "did you mean 'cifar10'")


def test_folder_without_image_files_is_refused(tmp_path):
    refuses(lambda: load_images(tmp_path), tmp_path, "train*images*")
    (tmp_path / "test.bin").write_bytes(bytes(3073))
    refuses(lambda: load_images(tmp_path), "no train images")


def test_training_and_test_images_of_different_shapes_are_refused(tmp_path):
    write_mnist(tmp_path / "mine")
    path = tmp_path / "mine" / "t10k-images-idx3-ubyte"
    path.write_bytes(idx(pixels(10, 4, 5)))
    refuses(lambda: load_images(tmp_path / "mine"), "(1, 4, 4)", "(1, 4, 5)")


def source(error=None):
    """A torchvision whose sets are small, or whose network is down."""

    def dataset(shape, classes):
        def make(root, train, download):
            assert download
            if error is not None:
                raise error
            labels = np.arange(20 if train else 5) % classes
            return types.SimpleNamespace(data=pixels(len(labels), *shape), targets=labels.tolist())

        return make

    sets = types.SimpleNamespace(
        MNIST=dataset((28, 28), 10),
        CIFAR10=dataset((32, 32, 3), 10),
        CIFAR100=dataset((32, 32, 3), 100),
    )
    module = types.ModuleType("torchvision")
    module.datasets = sets
    return module


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32)), ("cifar100", (3, 32, 32))],
)
def test_missing_set_is_fetched_where_torchvision_is_installed(tmp_path, monkeypatch, name, shape):
    monkeypatch.setitem(sys.modules, "torchvision", source())
    data = load_images(name, tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    again = load_images(name, tmp_path)
    assert data.shape == shape
    assert data.test.labels.tolist() == list(range(5))
    assert torch.equal(data.train.pixels, again.train.pixels)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("mnist", "train-images-idx3-ubyte.gz"),
        ("cifar10", "cifar-10-batches-bin/test_batch.bin"),
        ("cifar10", "data_batch_3.bin"),
    ],
)
def test_files_of_the_users_are_not_overwritten_by_fetched_ones(tmp_path, monkeypatch, name, own):
    monkeypatch.setitem(sys.modules, "torchvision", source())
    path = tmp_path / name / own
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    refuses(lambda: load_images(name, tmp_path), "put the files there")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("error", [OSError("no network"), RuntimeError("not the file")])
def test_set_that_cannot_be_fetched_is_missing(tmp_path, monkeypatch, error):
    monkeypatch.setitem(sys.modules, "torchvision", source(error))
    refuses(lambda: load_images("mnist", tmp_path), "train-images-idx3-ubyte")
    assert not list(tmp_path.rglob("*ubyte*"))
