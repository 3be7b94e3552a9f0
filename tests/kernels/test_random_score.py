"""The `random` score: uniform, reproducible, and without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from poolscore.kernels.philox import philox_numpy
from poolscore.kernels.random_score import uniform_from_keys


def test_definition() -> None:
    keys_N = np.array([0, 1, 2**32, 2**64 - 1, 0x0123456789ABCDEF], dtype=np.uint64)
    for key, value in zip(keys_N.tolist(), uniform_from_keys(keys_N, 99), strict=True):
        word = int(philox_numpy(key & 0xFFFFFFFF, key >> 32, 0xFFFFFFFF, 0xFFFFFFFF, seed=99)[0])
        assert float(value) == (word >> 8) / 2**24


def test_uniform_and_independent_of_the_batch() -> None:
    keys_N = np.arange(100_000, dtype=np.uint64) << np.uint64(20)
    values_N = uniform_from_keys(keys_N, seed=5)
    assert values_N.dtype == np.float32
    assert values_N.min() >= 0
    assert values_N.max() < 1
    counts = np.histogram(values_N, bins=100, range=(0, 1))[0]
    assert ((counts - 1000.0) ** 2 / 1000).sum() < 160  # chi-square, 99 degrees of freedom: p below 1e-4 (one seed)
    assert np.array_equal(uniform_from_keys(keys_N[7:11], seed=5), values_N[7:11])
    assert not np.array_equal(uniform_from_keys(keys_N, seed=6), values_N)
    assert uniform_from_keys(keys_N[:0], seed=5).shape == (0,)


def test_keys_must_be_uint64() -> None:
    with pytest.raises(ValueError, match="uint64"):
        uniform_from_keys(np.arange(3), seed=0)  # type: ignore[arg-type]


def test_numpy_modules_do_not_import_torch() -> None:
    code = (
        "import sys, poolscore.kernels.random_score, poolscore.kernels.dropout_mask_numpy; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
