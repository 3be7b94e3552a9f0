"""Numbers in words."""

from poolscore.engine.words import amount


def test_one_is_singular() -> None:
    assert [amount(n, "file") for n in (0, 1, 2, 2000)] == ["0 files", "1 file", "2 files", "2,000 files"]
