"""Which rows count: the filter as rows, as row groups and as folders see it, and the sample."""

from __future__ import annotations

import datetime as dt
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolscore.engine.errors import ConfigError
from poolscore.engine.keys import keys_of
from poolscore.engine.pool.choice import EVERY_ROW, NO_VALUE, RowChoice
from poolscore.engine.pool.footer import read_footer
from poolscore.engine.storage.filesystem import locate

TABLE = pa.table(
    {
        "n": pa.array([1, 2, None, 4], pa.int8()),
        "x": [0.5, float("nan"), 2.5, None],
        "label": pa.array(["cat", "dog", None, "cat"]).dictionary_encode(),
        "good": [True, False, None, True],
        "day": pa.array([dt.date(2026, 1, d) for d in (1, 2, 3, 4)]),
        "at": pa.array([dt.datetime(2026, 1, d, tzinfo=dt.UTC) for d in (1, 2, 3, 4)], pa.timestamp("us", "UTC")),
        "price": pa.array(["1.10", "2.20", "3.30", "4.40"]).cast(pa.decimal128(5, 2)),
        "big": pa.array([1, 2**63 + 5, None, 2**64 - 1], pa.uint64()),
        "long": pa.array([2**53, 2**53 + 1, 1, None], pa.int64()),
        "raw": pa.array([b"a", b"b", None, b"d"], pa.binary()),
    }
)
KEYS = keys_of(list("abcd"))


def kept(text: str, table: pa.Table = TABLE) -> list[int]:
    choice = RowChoice(text)
    choice.check(table.schema)
    mask = choice.keep(table, keys_of([str(i) for i in range(table.num_rows)]))
    assert mask is not None
    return list(np.flatnonzero(mask))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("n > 1", [1, 3]),
        ("not n > 1", [0]),
        ("n == 300", []),
        ("n < 2.5", [0, 1]),
        ("4 <= n", [3]),
        ("n is null", [2]),
        ("n is not null", [0, 1, 3]),
        ("x > 0", [0, 2]),
        ("x < n", [0]),
        ("not x > 1", [0]),  # NaN compares as null
        ("x != 2.5", [0]),
        ("big > 2", [1, 3]),
        ("big >= 18446744073709551615", [3]),
        ("big < 1e18", [0]),
        ("long > 9007199254740992.0", [1]),
        ("price >= 3", [2, 3]),
        ('label == "cat"', [0, 3]),
        ('label != "cat"', [1]),
        ('label in ("dog", "bird")', [1]),
        ('label not in ("dog", "bird")', [0, 3]),
        ("good", [0, 3]),
        ("not good", [1]),
        ("good == false", [1]),
        ("good or n == 2", [0, 1, 3]),
        ("good and n is null", []),
        ("n is null or good", [0, 2, 3]),
        ('day >= "2026-01-03"', [2, 3]),
        ('day in ("2026-01-01", "2026-01-04")', [0, 3]),
        ('at < "2026-01-02T00:00:00Z"', [0]),
        ("price > 2.2", [2, 3]),
        ('price == "2.20"', [1]),
        ('raw == "b"', [1]),
        ("n == '4'", [3]),
    ],
)
def test_rows_in_the_logic_of_sql(text: str, rows: list[int]) -> None:
    assert kept(text) == rows
    halves = [TABLE.slice(0, 2), TABLE.slice(2, 2)]
    assert kept(text, pa.concat_tables([half.combine_chunks() for half in halves])) == rows  # in two chunks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size > 1", "pool.filter: there is no column 'size'; there are: n, x, label"),
        ("n == 'cat'", "pool.filter: column 'n' is int8; 'cat' is none"),
        ("label > 1", "pool.filter: it does not fit column 'label' "),
        ("day == 7", "pool.filter: it does not fit column 'day' "),
        ("big != -1", "pool.filter: column 'big' is uint64; -1 is none"),
        ("n < 99999999999999999999", "pool.filter: column 'n' is int8; 99999999999999999999 is none"),
        ("n", "pool.filter: n is no condition; compare the column with a value"),
        ("not n", "pool.filter: it does not fit column 'n' "),
        ("label and good", "pool.filter: it does not fit column 'label' "),
        ("label < good", "pool.filter: it does not fit column 'label' .*, 'good' "),
        ("at < '2026-01-02'", "pool.filter: column 'at' is timestamp.*zone"),
    ],
)
def test_what_does_not_fit_the_columns_is_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        kept(text)
    assert "\n" not in str(caught.value)


VALUES = st.one_of(st.none(), st.integers(-3, 3))
COMPARED = st.builds(
    "{} {} {}".format, st.sampled_from("ab"), st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), st.integers(-3, 3)
)
LEAVES = st.one_of(
    COMPARED, st.sampled_from(["a is null", "b is not null", "a < b", "p == 1", "p in (2, 3)", "a in (0, 2)"])
)
CONDITIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=5,
)


FLOATS = st.one_of(VALUES, st.just(float("nan")))


@given(CONDITIONS, st.lists(st.lists(st.tuples(VALUES, FLOATS), min_size=1, max_size=3), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_group_and_no_folder_is_passed_over_that_holds_a_row(
    tmp_path: Path, text: str, groups: list[list[tuple[int | None, float | None]]]
) -> None:
    paths = ["p=1/x.parquet", "p=2/x.parquet"]
    choice = RowChoice.of(text, paths)
    schema = pa.schema([("a", pa.int64()), ("b", pa.float64())])
    for path, can_match in zip(paths, choice.can_match(paths), strict=True):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        tables = [
            pa.table([pa.array(x, kind) for x, kind in zip(zip(*rows, strict=True), schema.types, strict=True)], schema)
            for rows in groups
        ]
        with pq.ParquetWriter(tmp_path / path, schema) as writer:
            for table in tables:
                writer.write_table(table)
        file = read_footer(locate("/").filesystem, str(tmp_path), path, keep=choice.expression)
        for table, matches in zip(tables, file.matches, strict=True):
            keep = choice.keep(choice.with_values(table, path), np.zeros(table.num_rows, np.uint64))
            assert keep is not None
            assert not keep.any() or (matches and can_match)


def test_row_groups_are_ruled_out_by_their_statistics(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(100), "s": [f"{i:03}" for i in range(100)]}), tmp_path / "x", row_group_size=10)

    def matching(text: str) -> list[int]:
        file = read_footer(locate("/").filesystem, str(tmp_path), "x", keep=RowChoice(text).expression)
        return list(np.flatnonzero(file.matches))

    assert matching("n >= 75") == [7, 8, 9]
    assert matching("s in ('005', '051') and n < 50") == [0]
    assert matching("n is null") == []
    assert matching("not (n < 95)") == [9]


@pytest.mark.parametrize(
    "text", ["price > 1", "price == 2.2", "big > 2", "long > 9007199254740992.0", "label == 'cat'"]
)
def test_a_file_is_not_unreadable_because_its_statistics_do_not_fit_the_filter(tmp_path: Path, text: str) -> None:
    pq.write_table(TABLE, tmp_path / "x", row_group_size=2)
    file = read_footer(locate("/").filesystem, str(tmp_path), "x", keep=RowChoice(text).expression)
    assert all(file.matches[row // 2] for row in kept(text))


def test_folders_give_columns_if_every_file_has_them() -> None:
    paths = ["day=2026-01-01/n=1/x", f"day={NO_VALUE}/n=-20/x", "n=3/day=a%20b/y=1/x"]
    choice = RowChoice.of(None, paths)
    assert choice.keys == {"day": False, "n": True}
    table = pa.table({"n": ["in the file", "too"], "z": [1, 2]})
    assert choice.with_keys(table.schema) == pa.schema([("n", pa.int64()), ("z", pa.int64()), ("day", pa.string())])
    found = [choice.with_values(table, path).to_pylist()[1] for path in paths]
    assert found == [
        {"n": 1, "z": 2, "day": "2026-01-01"},
        {"n": -20, "z": 2, "day": None},
        {"n": 3, "z": 2, "day": "a b"},
    ]
    assert choice.with_values(table, paths[0]).schema == choice.with_keys(table.schema)
    assert choice.in_files(["z", "n", "z"]) == ["z"]
    assert RowChoice.of(None, ["a=1/x", "x"]).keys == {}
    assert RowChoice.of(None, ["a=01/x", "a=x/x"]).keys == {"a": False}


def test_folders_alone_rule_files_out() -> None:
    paths = [f"day=2026-01-{day:02}/n={day}/x" for day in range(1, 6)] + [f"day={NO_VALUE}/n=6/x"]

    def left(text: str | None) -> list[int]:
        return [i + 1 for i in np.flatnonzero(RowChoice.of(text, paths).can_match(paths)).tolist()]

    assert left("day >= '2026-01-04'") == [4, 5, 6]  # a null is not false: its rows are looked at
    assert left("n < 3 and z == 1") == [1, 2]
    assert left("n < 3 or z == 1") == [1, 2, 3, 4, 5, 6]
    assert left("not (n < 3 or z == 1)") == [3, 4, 5, 6]
    assert left("z == 1") == left(None) == [1, 2, 3, 4, 5, 6]
    assert left("n > 9") == []


def test_a_sample_is_drawn_by_key_and_seed() -> None:
    keys = keys_of([str(i) for i in range(20_000)])
    table = pa.table({"n": pa.nulls(len(keys))})
    one, other = (RowChoice(share=0.25, seed=seed).keep(table, keys) for seed in (1, 2))
    assert one is not None
    assert other is not None
    for mask in (one, other):
        assert 0.24 < mask.mean() < 0.26
    assert 0.05 < (one & other).mean() < 0.075  # 1/16: independent
    again = RowChoice(share=0.25, seed=1).keep(table, keys[::-1])
    assert again is not None
    np.testing.assert_array_equal(again[::-1], one)
    assert EVERY_ROW.keep(table, keys) is None


def test_a_choice_travels() -> None:
    choice = RowChoice.of("n == 1 and a > 2", ["n=1/x"])
    assert choice.columns == ("n", "a")
    assert pickle.loads(pickle.dumps(choice)) == choice
