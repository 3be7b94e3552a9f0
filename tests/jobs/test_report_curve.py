"""Curves with their spread over seeds: what is drawn is what was given, and names stay text."""

from __future__ import annotations

import math
import re

import pytest
from report_workshop import Elements, require_harmless

from poolscore.jobs.report import page
from poolscore.jobs.report.axes import Axis
from poolscore.jobs.report.curve import HEIGHT, Point, curves_svg, spread_of, tails_of

CURVES = {
    "bald": {"0": [(20, 0.2), (40, 0.8)], "1": [(40, 0.6), (20, 0.4), (60, math.nan)]},
    "random": {"0": [(20, 0.1), (40, 0.3), (60, 0.5)]},
}


def test_the_spread_is_over_the_seeds() -> None:
    points = spread_of(CURVES["bald"])
    assert points == [Point(20, pytest.approx(0.3), 0.2, 0.4, 2), Point(40, pytest.approx(0.7), 0.6, 0.8, 2)]


def test_seeds_of_different_lengths_and_labels() -> None:
    seeds = {"0": [(20, 0.0), (40, 0.2), (80, 0.4)], "1": [(30, 1.0), (50, 0.8)]}
    assert spread_of(seeds) == [  # from 30, where both have begun, to 50, where one ends; 0.25 by the straight line
        Point(30, pytest.approx(0.55), pytest.approx(0.1), 1.0, 2),
        Point(40, pytest.approx(0.55), pytest.approx(0.2), pytest.approx(0.9), 2),
        Point(50, pytest.approx(0.525), pytest.approx(0.25), 0.8, 2),
    ]
    assert tails_of(seeds) == [[(50, pytest.approx(0.25)), (80, 0.4)]]
    assert curves_svg({"a": seeds}, "x", "y").count('class="tail"') == 1
    apart = {"0": [(1, 0.0)], "1": [(2, 1.0)]}
    assert (spread_of(apart), tails_of(apart)) == ([], [[(1, 0.0)], [(2, 1.0)]])
    assert "no point that all seeds share" in curves_svg({"a": apart}, "x", "y")


def test_lines_and_bands_lie_where_the_values_are() -> None:
    html = curves_svg(CURVES, "labels", "accuracy")
    bald, random = re.findall(r'<polygon points="([^"]*)"/><polyline points="([^"]*)"/>', html)

    def y(value: float) -> str:
        return f"{abs(HEIGHT * (0.8 - value) / 0.7):.1f}"

    assert bald[1] == f"0.0,{y(0.3)} 500.0,{y(0.7)}"
    assert bald[0] == f"0.0,{y(0.4)} 500.0,{y(0.8)} 500.0,{y(0.6)} 0.0,{y(0.2)}"
    assert random[1] == f"0.0,{y(0.1)} 500.0,{y(0.3)} 1000.0,{y(0.5)}"
    assert "bald: 0.7000 at 40, 0.6000 to 0.8000 over 2 seeds</title>" in html
    assert "random: 0.5000 at 60</title>" in html


def test_a_page_of_curves_is_harmless_and_can_be_read_aloud() -> None:
    html = curves_svg({"<script>alert(1)</script>": CURVES["bald"], "random": CURVES["random"]}, "<b>", "'y\"")
    read = require_harmless(page.page("curves", [html]))
    drawing = next(svg for svg in read.all("svg") if svg.get("role") == "img")
    assert str(drawing["aria-label"]).startswith("'y\" over <b>. <script>alert(1)</script> ends at 0.7000 at 40,")
    assert "<script>alert(1)</script> random" in read.text  # the legend
    assert not read.all("script")


def test_more_arms_than_styles_begin_again_with_the_first() -> None:
    html = curves_svg({f"arm {i}": {"0": [(i, i)]} for i in range(8)}, "x", "y")
    assert html.count('<g class="arm-0">') == 2
    assert "arm-6" not in html


@pytest.mark.parametrize("curves", [{}, {"bald": {}}, {"bald": {"0": []}}, {"bald": {"0": [(1, math.inf)]}}])
def test_nothing_is_drawn_of_nothing(curves: dict[str, dict[str, list[tuple[float, float]]]]) -> None:
    assert curves_svg(curves, "x", "y") == ""


def test_a_single_point_has_room_around_it() -> None:
    dots = Elements(curves_svg({"a": {"0": [(20, 0.5)]}}, "x", "y")).all("circle")
    assert [(dot["cx"], dot["cy"]) for dot in dots] == [("50.000%", f"{HEIGHT / 2:.1f}")]


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Axis(0.03, 0.31), [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
        (Axis(-7.0, 7.0), [-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0]),
        (Axis(0.0, 3e6), [0.0, 500_000.0, 1e6, 1.5e6, 2e6, 2.5e6, 3e6]),
    ],
)
def test_ticks_are_round(axis: Axis, ticks: list[float]) -> None:
    assert axis.ticks() == ticks
    assert [axis.place(axis.low - 1), axis.place(axis.high + 1)] == [0.0, 100.0]
