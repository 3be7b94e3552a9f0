"""Philox4x32-10 against Random123's known answers, and numpy against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poolscore.kernels.philox import key_words, philox_numpy
from poolscore.kernels.philox_torch import philox_torch

# From Random123's kat_vectors: counter, key, answer.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
word = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1])


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]) -> None:
    seed = key[1] << 32 | key[0]
    assert tuple(int(w) for w in philox_numpy(*counter, seed=seed)) == answer
    assert tuple(int(w) for w in philox_torch(*(torch.tensor(c) for c in counter), seed=seed)) == answer


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(word, word, word, word), min_size=1, max_size=9), st.integers(0, 2**64 - 1))
def test_torch_equals_numpy(counters: list[tuple[int, int, int, int]], seed: int) -> None:
    columns = np.array(counters, dtype=np.int64).T
    expected = philox_numpy(*columns, seed=seed)
    got = philox_torch(*torch.from_numpy(columns), seed=seed)
    for numpy_word, torch_word in zip(expected, got, strict=True):
        assert numpy_word.dtype == np.uint32
        assert torch_word.dtype == torch.int64
        assert np.array_equal(numpy_word, torch_word.numpy())


def test_words_broadcast_and_inputs_stay() -> None:
    c0, c2 = torch.arange(3)[:, None], torch.arange(5)
    zero = torch.zeros((), dtype=torch.int64)
    got = philox_torch(c0, zero, c2, zero, seed=7)
    expected = philox_numpy(c0.numpy(), 0, c2.numpy(), 0, seed=7)
    for numpy_word, torch_word in zip(expected, got, strict=True):
        assert numpy_word.shape == torch_word.shape == (3, 5)
        assert np.array_equal(numpy_word, torch_word.numpy())
    assert c0[:, 0].tolist() == [0, 1, 2]
    assert c2.tolist() == [0, 1, 2, 3, 4]
    assert zero.item() == 0


def test_no_rows() -> None:
    assert [w.shape for w in philox_numpy(np.zeros(0, np.uint64), 0, 0, 0, seed=1)] == [(0,)] * 4


def test_key_words() -> None:
    assert key_words(0x0123456789ABCDEF) == (0x89ABCDEF, 0x01234567)
    for seed in (-1, 1 << 64):
        with pytest.raises(ValueError, match="seed must be in"):
            key_words(seed)
