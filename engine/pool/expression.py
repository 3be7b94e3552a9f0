"""The small language of `pool.filter`, in the way that Arrow writes expressions. Parsed, never evaluated as Python.

label == "cat" and size > 10            comparisons: == = != <> < <= > >=
split in ("train", "extra")             also: not in
reviewed is null or not (a < b)         also: is not null
date >= "2026-01-01"                    text stands for dates and times, too; `odd name` is a column
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal as OneOf

MOST = 10_000  # characters
MOST_VALUES = 1_000  # in a list
MOST_DEPTH = 100  # of parentheses
Value = str | int | float | bool


@dataclass(frozen=True)
class Column:
    """The value of a column."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A value that is written down."""

    value: Value


@dataclass(frozen=True)
class Comparison:
    """`left operator right`; null where one of them is."""

    operator: str
    left: Column | Literal
    right: Column | Literal


@dataclass(frozen=True)
class IsNull:
    """Whether a column has no value."""

    column: Column


@dataclass(frozen=True)
class Not:
    """The contrary; null stays null."""

    condition: Condition


@dataclass(frozen=True)
class Both:
    """Two conditions, in the logic of SQL."""

    joined_by: OneOf["and", "or"]
    left: Condition
    right: Condition


Condition = Column | Comparison | IsNull | Not | Both

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<column>`[^`]+`)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<sign>==|!=|<>|<=|>=|[=<>(),])
    )""",
    re.VERBOSE | re.DOTALL,
)
_SAME = {"=": "==", "<>": "!="}
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_WORDS = ("and", "or", "not", "in", "is", "null", "true", "false")


def parse(text: str) -> Condition:
    """The condition that `text` says.

    Raises:
        ValueError: what is wrong, and where.
    """
    if len(text) > MOST:
        raise ValueError(f"longer than {MOST} characters; give a column that says it shorter")
    parser = _Parser(list(_tokens(text)))
    condition = parser.condition()
    parser.expect("", "'and', 'or' or the end")
    return condition


def columns_in(condition: Condition) -> tuple[str, ...]:
    """Names of the columns, each once."""
    return tuple(dict.fromkeys(_names(condition)))


def _names(node: Condition | Literal) -> Iterator[str]:
    match node:
        case Column(name):
            yield name
        case IsNull(column):
            yield column.name
        case Not(condition):
            yield from _names(condition)
        case Comparison(_, left, right) | Both(_, left, right):
            yield from _names(left)
            yield from _names(right)


@dataclass(frozen=True)
class _Token:
    kind: str  # a group of _TOKEN; "" at the end
    text: str
    at: int  # character, from 1

    @property
    def word(self) -> str:
        """The keyword or sign that it is."""
        lower = self.text.lower()
        return self.text if self.kind == "sign" else lower if self.kind == "word" and lower in _WORDS else ""


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if found is None:
            hint = "; write 'and', 'or', 'not'" if text[at:].lstrip()[:1] in "&|~!" else ""
            raise ValueError(f"cannot be read from {_short(text[at:].strip())}{hint}")
        assert found.lastgroup is not None
        written = found[found.lastgroup]
        yield _Token(found.lastgroup, _SAME.get(written, written), found.start(found.lastgroup) + 1)
        at = found.end()
    yield _Token("", "", len(text) + 1)


class _Parser:
    """One method for each level of binding, the loosest first."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def condition(self) -> Condition:
        parts = [self._all_of()]
        while self._accept("or"):
            parts.append(self._all_of())
        return _joined("or", parts)

    def expect(self, word: str, called: str) -> None:
        token = self._tokens[self._at]
        if token.word != word or (not word and token.kind):
            found = _short(token.text) if token.kind else "the end"
            raise ValueError(f"expected {called} at character {token.at}, found {found}")
        self._at += bool(word)

    def _accept(self, word: str) -> bool:
        found = self._tokens[self._at].word == word
        self._at += found
        return found

    def _all_of(self) -> Condition:
        parts = [self._negated()]
        while self._accept("and"):
            parts.append(self._negated())
        return _joined("and", parts)

    def _negated(self) -> Condition:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise ValueError(f"more than {MOST_DEPTH} levels deep")
        condition = Not(self._negated()) if self._accept("not") else self._single()
        self._depth -= 1
        return condition

    def _single(self) -> Condition:
        if self._accept("("):
            inside = self.condition()
            self.expect(")", "')'")
            return inside
        left = self._operand()
        if isinstance(left, Column):
            if self._accept("is"):
                return self._null(left)
            if self._tokens[self._at].word == "not":
                self._at += 1
                self.expect("in", "'in'")
                return Not(self._any_of(left))
            if self._accept("in"):
                return self._any_of(left)
        for operator in _COMPARISONS:
            if self._accept(operator):
                right = self._operand()
                if isinstance(left, Literal) and isinstance(right, Literal):
                    raise ValueError(f"{left.value!r} {operator} {right.value!r} names no column")
                return Comparison(operator, left, right)
        if isinstance(left, Literal):
            raise ValueError(f"{left.value!r} is no condition; a column is written without quotes")
        return left

    def _null(self, column: Column) -> Condition:
        negated = self._accept("not")
        self.expect("null", "'null'")
        return Not(IsNull(column)) if negated else IsNull(column)

    def _any_of(self, column: Column) -> Condition:
        self.expect("(", "'(' and a list of values")
        choices: list[Condition] = []
        while not choices or self._accept(","):
            value = self._operand()
            if isinstance(value, Column):
                raise ValueError(f"a list holds values only; quote '{value.name}' if it is text")
            choices.append(Comparison("==", column, value))
        self.expect(")", "',' or ')'")
        if len(choices) > MOST_VALUES:
            raise ValueError(f"a list of more than {MOST_VALUES} values; give a column that says it shorter")
        return _joined("or", choices)

    def _operand(self) -> Column | Literal:
        token = self._tokens[self._at]
        if token.word == "null":
            raise ValueError(f"nothing equals null; write 'is null' at character {token.at}")
        if token.word in ("true", "false"):
            operand: Column | Literal = Literal(token.word == "true")
        elif token.kind == "number":
            whole = re.fullmatch(r"-?\d+", token.text)
            operand = Literal(int(token.text) if whole else float(token.text))
        elif token.kind == "text":
            operand = Literal(re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL))
        elif token.kind == "column" or (token.kind == "word" and not token.word):
            operand = Column(token.text.strip("`"))
        else:
            self.expect("a column or a value", "a column or a value")
        self._at += 1
        return operand


def _joined(by: OneOf["and", "or"], parts: list[Condition]) -> Condition:
    """A balanced tree: no recursion over it goes deep."""
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [Both(by, *pair) for pair in pairs] + parts[len(parts) // 2 * 2 :]
    return parts[0]


def _short(text: str) -> str:
    return repr(text if len(text) <= 20 else f"{text[:20]}…")
