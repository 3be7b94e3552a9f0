"""The language of pool.filter: what can be said, and that nothing else can."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolscore.engine.config import parse_config
from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.expression import Both, Column, Comparison, IsNull, Literal, Not, columns_in, parse

A, B = Column("a"), Column("b")


def is_equal(column: Column, value: str | int | float | bool) -> Comparison:
    return Comparison("==", column, Literal(value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a == "cat"', is_equal(A, "cat")),
        ("a = 'it''", None),
        ("'x' <> a", Comparison("!=", Literal("x"), A)),
        ("a >= -1.5e3", Comparison(">=", A, Literal(-1500.0))),
        ("a<10", Comparison("<", A, Literal(10))),
        ("a < b", Comparison("<", A, B)),
        ("a == TRUE", is_equal(A, True)),
        ("`odd name` == 1", is_equal(Column("odd name"), 1)),
        ("`and` == 1", is_equal(Column("and"), 1)),
        (r'a == "say \"hi\" \\ there"', is_equal(A, r'say "hi" \ there')),
        ("a", A),
        ("not a", Not(A)),
        ("a is null", IsNull(A)),
        ("a IS NOT NULL", Not(IsNull(A))),
        ("a and b or a", Both("or", Both("and", A, B), A)),
        ("a or b and a", Both("or", A, Both("and", B, A))),
        ("not a and b", Both("and", Not(A), B)),
        ("not (a and b)", Not(Both("and", A, B))),
        ("a in (1, 'x')", Both("or", is_equal(A, 1), is_equal(A, "x"))),
        ("a not in (1)", Not(is_equal(A, 1))),
        ("a in (1,2,3)", Both("or", Both("or", is_equal(A, 1), is_equal(A, 2)), is_equal(A, 3))),
    ],
)
def test_what_can_be_said(text: str, expected: object) -> None:
    if expected is None:
        with pytest.raises(ValueError, match="cannot be read from"):
            parse(text)
    else:
        assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a column or a value at character 1, found the end"),
        ("a ==", "expected a column or a value at character 5, found the end"),
        ("a == 1 b", "expected 'and', 'or' or the end at character 8, found 'b'"),
        ("(a == 1", "expected '\\)' at character 8"),
        ("a == 1)", "expected 'and', 'or' or the end at character 7"),
        ("a & b", "cannot be read from '& b'; write 'and', 'or', 'not'"),
        ("a == null", "nothing equals null; write 'is null' at character 6"),
        ("1 == 1", "1 == 1 names no column"),
        ("'a'", "'a' is no condition; a column is written without quotes"),
        ("a in ()", "expected a column or a value at character 7"),
        ("a in (b)", "a list holds values only; quote 'b' if it is text"),
        ("a not b", "expected 'in' at character 7"),
        ("a is 1", "expected 'null'"),
        ("a == 1.2.3", "cannot be read from '1.2.3'"),
        ("a == 12x", "cannot be read from '12x'"),
        ("a.b == 1", "cannot be read from '.b == 1'"),
        ("__import__('os') == 1", "expected 'and', 'or' or the end at character 11"),
        ("a if b else a", "expected 'and', 'or' or the end"),
        ("not " * 200 + "a", "more than 100 levels deep"),
        ("(" * 200 + "a" + ")" * 200, "more than 100 levels deep"),
        ("a in (" + "1," * 1000 + "1)", "more than 1000 values"),
        ("a" * 10_001, "longer than 10000 characters"),
    ],
)
def test_what_cannot_be_said_is_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="ab1\"'`() ,=<>!&.andornotisnull\\\n", max_size=40))
def test_any_text_is_a_condition_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        parse(text)


def test_columns_are_named_once() -> None:
    assert columns_in(parse("a == 1 and (b is null or not (1 < a)) and c")) == ("a", "b", "c")


@pytest.mark.parametrize(
    "text", [f"a in ({','.join(map(str, range(1000)))})", "a or " * 1999 + "a", "a and " * 1600 + "a"]
)
def test_a_long_condition_is_a_tree_that_is_not_deep(text: str) -> None:
    node, depth = parse(text), 0
    while isinstance(node, Both):
        node, depth = node.left, depth + 1
    assert depth <= 11
    assert columns_in(node) == ("a",)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("filter", "a ==", "pool.filter: expected a column or a value"),
        ("sample", 1.5, "pool.sample: must be a fraction below 1 or a whole number of rows, got 1.5"),
        ("sample", 0, "pool.sample: "),
        ("bad_files", "ignore", "pool.bad_files: "),
    ],
)
def test_the_configuration_refuses_what_is_wrong(key: str, value: object, message: str) -> None:
    sections = {"model": {"source": "m:f", "task": "multiclass"}, "select": {"k": 1}, "run": {"dir": "run"}}
    assert parse_config({"pool": {"uri": "p", "input": "x", "filter": "a == 1", "sample": 0.5}, **sections})
    with pytest.raises(ConfigError, match=message):
        parse_config({"pool": {"uri": "p", "input": "x", key: value}, **sections})
