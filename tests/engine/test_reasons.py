"""Reasons that differ in numbers and names only are one."""

import pytest

from poolscore.engine.reasons import by_kind, kind_of


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("312 tokens, more than length 128", "205 tokens, more than length 128"),
        ("640x480 pixels, smaller than the crop of 700x700", "32x32 pixels, smaller than the crop of 700x700"),
        ("KeyError: 'a.jpg'", "KeyError: 'b.jpg'"),
        ("cannot identify image file /pool/a b/1.jpg", "cannot identify image file /pool/a b/one.png"),
        ("shape [3, 32], expected [3, 64]", "shape [1, 32], expected [3, 64]"),
        ("ValueError: <Row at 0x7fa0>", "ValueError: <Row at 0xbeef>"),
        ("1,024.5 seconds", "7 seconds"),
    ],
)
def test_one_kind(one: str, another: str) -> None:
    assert kind_of(one) == kind_of(another) != one
    assert kind_of(kind_of(one)) == kind_of(one)
    assert by_kind([(one, 2), (another, 3), ("null", 4)]) == {kind_of(one): 5, "null": 4}


def test_a_reason_that_stands_alone_keeps_its_words() -> None:
    assert by_kind([("8 bits in 'x'", 2), ("8 bits in 'x'", 1)]) == {"8 bits in 'x'": 3}
    assert kind_of("Pillow's mode isn't it; use kind 'tensor'") == "Pillow's mode isn't it; use kind '…'"


def test_sums_can_be_added_up_in_any_order() -> None:
    given = [("1 token", 1), ("2 tokens", 1), ("3 tokens", 1), ("null", 2)]
    at_once = by_kind(given)
    in_parts = by_kind([*by_kind(given[:2]).items(), *by_kind(given[2:]).items()])
    assert at_once == in_parts == by_kind(reversed(given)) == {"1 token": 1, "N tokens": 2, "null": 2}
