"""`pack` on IDX, `.npy` and `.npz`: pixels and tensors come back, wrong files are refused by name."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from poolscore.engine.errors import ConfigError
from poolscore.jobs.pack import idx, pack
from poolscore.jobs.pack.contract import PIECE_ROWS

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D}


def idx_bytes(array: NDArray[Any]) -> bytes:
    code = CODES[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def decoded(pool: Path) -> NDArray[np.uint8]:
    images: list[Any] = pq.read_table(pool)["image"].to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(data), formats=["PNG"])) for data in images])


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("shape", [(9, 5, 4), (3, 5, 4, 3)], ids=["grey", "rgb"])
def test_idx_round_trip(tmp_path: Path, packed: bool, shape: tuple[int, ...]) -> None:
    images = pixels(*shape)
    labels = np.arange(len(images), dtype=np.uint8)
    squeeze = gzip.compress if packed else bytes
    source = write(tmp_path / f"train-images-idx3-ubyte{'.gz' * packed}", squeeze(idx_bytes(images)))
    answers = write(tmp_path / f"train-labels-idx1-ubyte{'.gz' * packed}", squeeze(idx_bytes(labels)))
    summary = pack(source, tmp_path / "pool", labels=answers)
    np.testing.assert_array_equal(decoded(tmp_path / "pool"), images)
    table = pq.read_table(tmp_path / "pool")
    assert table["id"].to_pylist() == table["label"].to_pylist() == list(range(len(images)))
    assert summary.columns == {"id": "int64", "image": "binary", "label": "int64"}


@pytest.mark.parametrize("name", ["anything", "anything.gz"])
def test_idx_is_known_by_its_magic(tmp_path: Path, name: str) -> None:
    squeeze = gzip.compress if name.endswith("gz") else bytes
    source = write(tmp_path / name, squeeze(idx_bytes(pixels(2, 3, 3))))
    assert pack(source, tmp_path / "pool").rows == 2


@pytest.mark.parametrize("kind", ["i1", "i2", "i4", "f4"])
def test_idx_labels_of_other_types_are_big_endian(tmp_path: Path, kind: str) -> None:
    labels = np.array([-3, 0, 100], dtype=kind)
    source = write(tmp_path / "a.idx3-ubyte", idx_bytes(pixels(3, 2, 2)))
    pack(source, tmp_path / "pool", labels=write(tmp_path / "b.idx1-int", idx_bytes(labels)))
    column = pq.read_table(tmp_path / "pool")["label"]
    assert column.to_pylist() == [-3, 0, 100]
    assert column.type == (pa.float64() if kind == "f4" else pa.int64())


GOOD = idx_bytes(pixels(6, 4, 4))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:-1], "is not whole"),
        (GOOD + b"x", "more follow"),
        (GOOD[:10], "ends within its header"),
        (b"", "starts with 0x,"),
        (b"\0\0\x07\x03" + GOOD[4:], "not an IDX file"),
        (b"\0\0\x08\0", "not an IDX file"),
        (b"\x89PNG" + GOOD[4:], "not an IDX file"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + bytes(40), "40 follow"),
        (b"\0\0\x08\xff" + b"\xff" * 1020 + bytes(40), "40 follow"),
        (gzip.compress(GOOD)[:-10], "cannot be read"),
        (gzip.compress(GOOD[:-1]), "is not whole"),
        (b"\x1f\x8b" + bytes(50), "cannot be read"),
        (idx_bytes(pixels(7)), "labels go into the option"),
        (idx_bytes(np.zeros((2, 2, 2), np.int16)), "images are uint8"),
        (idx_bytes(np.zeros((2, 2, 2, 2), np.uint8)), "images are uint8"),
        (idx_bytes(np.zeros((0, 4, 4), np.uint8)), "holds no rows"),
        (idx_bytes(np.zeros((4, 0, 4), np.uint8)), "rows of 0 bytes"),
    ],
)
def test_wrong_idx_is_refused_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    source = write(tmp_path / "t-images-idx3-ubyte", data)
    with pytest.raises(ConfigError, match=message) as error:
        pack(source, tmp_path / "pool")
    assert str(source) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "pool").exists()


def test_gzip_that_holds_far_more_than_its_header_states_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "bomb-idx3-ubyte.gz", gzip.compress(GOOD + bytes(20_000_000), 1))
    read = 0
    real = gzip.GzipFile.read

    def counting(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal read
        data = real(self, size)
        read += len(data)
        return data

    monkeypatch.setattr(gzip.GzipFile, "read", counting)
    with pytest.raises(ConfigError, match="more follow"):
        idx.open_idx(source)
    assert read == len(GOOD) + 1


@pytest.mark.parametrize("count", [2, 4])
def test_labels_of_another_length_are_refused(tmp_path: Path, count: int) -> None:
    source = write(tmp_path / "a.idx3-ubyte", idx_bytes(pixels(3, 2, 2)))
    labels = write(tmp_path / "b.idx1-ubyte", idx_bytes(np.zeros(count, np.uint8)))
    with pytest.raises(ConfigError, match=f"hold {count} rows"):
        pack(source, tmp_path / "pool", labels=labels)


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 1), (5, 4, 3, 3), (5, 4, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_images_round_trip(tmp_path: Path, shape: tuple[int, ...], order: Any) -> None:
    images = np.asarray(pixels(*shape), order=order)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", np.arange(5, dtype=np.uint32)[:, None])
    pack(tmp_path / "x.npy", tmp_path / "pool", labels=tmp_path / "y.npy")
    np.testing.assert_array_equal(decoded(tmp_path / "pool").reshape(shape), images)
    assert pq.read_table(tmp_path / "pool")["label"].to_pylist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i8", ">u2", "|i1", "<u8", "|b1"])
@pytest.mark.parametrize("shape", [(6, 2, 3), (6, 4), (6,)])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_other_arrays_become_tensors(tmp_path: Path, dtype: str, shape: tuple[int, ...], kind: str) -> None:
    array = (np.random.default_rng(3).random(shape) * 100).astype(dtype)
    if kind == "npy":
        np.save(tmp_path / "x.npy", array)
    else:
        np.savez_compressed(tmp_path / "x.npz", whatever=array)
    pack(tmp_path / f"x.{kind}", tmp_path / "pool", tensor_column="features")
    column: Any = pq.read_table(tmp_path / "pool")["features"].combine_chunks()
    assert isinstance(column.type, pa.FixedShapeTensorType)
    assert column.type.shape == list(shape[1:] or (1,))
    expected = array.astype(np.uint8) if dtype == "|b1" else array.astype(array.dtype.newbyteorder("="))
    back = column.to_numpy_ndarray().reshape(shape)
    assert back.dtype == expected.dtype
    np.testing.assert_array_equal(back, expected)


def test_as_tensor_keeps_images_as_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(3, 4, 5, 3))
    pack(tmp_path / "x.npy", tmp_path / "pool", as_tensor=True)
    column: Any = pq.read_table(tmp_path / "pool")["tensor"].combine_chunks()
    np.testing.assert_array_equal(column.to_numpy_ndarray(), pixels(3, 4, 5, 3))


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y"), ("X_train", "y_train"), ("data", "y")])
def test_npz_keys_are_found(tmp_path: Path, keys: tuple[str, str]) -> None:
    np.savez(tmp_path / "d.npz", **{keys[0]: pixels(4, 2, 2), keys[1]: np.array([3, 2, 1, 0])})  # type: ignore[arg-type]
    pack(tmp_path / "d.npz", tmp_path / "pool")
    np.testing.assert_array_equal(decoded(tmp_path / "pool"), pixels(4, 2, 2))
    assert pq.read_table(tmp_path / "pool")["label"].to_pylist() == [3, 2, 1, 0]


def test_npz_keys_can_be_named_and_a_labels_file_wins(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=pixels(2, 2, 2), b=pixels(2, 3), c=np.array([8, 9]), y=np.array([1, 2]))
    with pytest.raises(ConfigError, match="'a', 'b', 'c'"):
        pack(tmp_path / "d.npz", tmp_path / "pool")
    with pytest.raises(ConfigError, match="no array 'q'"):
        pack(tmp_path / "d.npz", tmp_path / "pool", array_key="q")
    pack(tmp_path / "d.npz", tmp_path / "pool", array_key="a", label_key="c")
    assert pq.read_table(tmp_path / "pool")["label"].to_pylist() == [8, 9]
    np.savez(tmp_path / "l.npz", np.array([0.5, 1.5]))
    pack(tmp_path / "d.npz", tmp_path / "pool2", array_key="a", labels=tmp_path / "l.npz")
    assert pq.read_table(tmp_path / "pool2")["label"].to_pylist() == [0.5, 1.5]


@pytest.mark.parametrize("name", ["x-idx3-ubyte.gz", "x.npy", "x.npz"])
def test_ids_and_labels_stay_in_step_over_many_pieces(tmp_path: Path, name: str) -> None:
    rows = 2 * PIECE_ROWS + 77
    images = np.arange(rows * 4, dtype=np.uint32).view(np.uint8).reshape(rows, 4, 4)
    labels = np.arange(rows, dtype=np.int32)
    if name.endswith("gz"):
        write(tmp_path / name, gzip.compress(idx_bytes(images)))
    elif name.endswith("npy"):
        np.save(tmp_path / name, images)
    else:
        np.savez(tmp_path / name, x=images)
    write(tmp_path / "y-idx1-int", idx_bytes(labels))
    pack(tmp_path / name, tmp_path / "pool", labels=tmp_path / "y-idx1-int", row_group_rows=500)
    table = pq.read_table(tmp_path / "pool")
    assert table["id"].to_pylist() == table["label"].to_pylist() == list(range(rows))
    np.testing.assert_array_equal(decoded(tmp_path / "pool"), images)


def npy_lying(shape: str) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(10)


@pytest.mark.parametrize("shape", ["(2,)", "(11,)", "(99999999999, 99999999999)", "(-10,)", "(10, 'a')"])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_numpy_header_that_lies_is_refused(tmp_path: Path, shape: str, kind: str) -> None:
    source = tmp_path / f"x.{kind}"
    if kind == "npy":
        source.write_bytes(npy_lying(shape))
    else:
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("x.npy", npy_lying(shape))
    with pytest.raises(ConfigError, match=r"x\.np"):
        pack(source, tmp_path / "pool")


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_pickles_are_refused(tmp_path: Path, kind: str) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    if kind == "npy":
        np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    else:
        np.savez(tmp_path / "x.npz", x=objects)
    with pytest.raises(ConfigError, match="pickled Python objects"):
        pack(tmp_path / f"x.{kind}", tmp_path / "pool")


@pytest.mark.parametrize("array", [np.array(["a", "b"]), np.zeros(3, complex), np.float32(3), np.zeros(2, "M8[s]")])
def test_arrays_that_are_no_numbers_or_no_rows_are_refused(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ConfigError, match=r"dtype|no rows"):
        pack(tmp_path / "x.npy", tmp_path / "pool")


@pytest.mark.parametrize(("name", "data"), [("x.npy", b""), ("x.npz", b"PK\3\4junk"), ("x.npy", b"\x80\x04K\x01.")])
def test_broken_numpy_files_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        pack(write(tmp_path / name, data), tmp_path / "pool")


def test_npz_damaged_inside_is_found_while_packing_and_leaves_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=pixels(50, 20, 20))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ConfigError, match="Bad CRC"):
        pack(write(tmp_path / "x.npz", bytes(data)), tmp_path / "pool")
    assert not (tmp_path / "pool").exists()


def test_npz_in_fortran_order_is_refused_with_advice(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.asfortranarray(pixels(3, 4, 5)))
    with pytest.raises(ConfigError, match="ascontiguousarray"):
        pack(tmp_path / "x.npz", tmp_path / "pool")


def test_labels_beyond_int64_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=pixels(1, 2, 2), y=np.array([2**63], np.uint64))
    with pytest.raises(ConfigError, match="beyond int64"):
        pack(tmp_path / "x.npz", tmp_path / "pool")


@pytest.mark.parametrize("name", ["x.bin", "x.json", "missing.npy"])
def test_unknown_or_missing_source_is_refused(tmp_path: Path, name: str) -> None:
    if name != "missing.npy":
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ConfigError, match="SOURCE"):
        pack(tmp_path / name, tmp_path / "pool")


def test_mnist_test_set(tmp_path: Path) -> None:
    data = Path(os.environ.get("POOLSCORE_DATA") or Path(__file__).parents[2] / "../shared/data") / "mnist"
    if not data.is_dir():
        pytest.skip(f"no shared data at {data}: set POOLSCORE_DATA")
    source = data / "t10k-images-idx3-ubyte.gz"
    summary = pack(source, tmp_path / "pool", labels=data / "t10k-labels-idx1-ubyte.gz")
    raw = np.frombuffer(gzip.decompress(source.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    assert (summary.rows, summary.files) == (10_000, 1)
    np.testing.assert_array_equal(decoded(tmp_path / "pool"), raw)
    labels = pq.read_table(tmp_path / "pool")["label"].to_numpy()
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
