"""What is written of a loop as it stands: curve.csv, loop_report.html, curve.png."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from poolscore.engine.config import Config
from poolscore.engine.errors import DONE, INCOMPLETE, STOPPED
from poolscore.engine.storage.local import LocalStorage
from poolscore.engine.words import amount
from poolscore.jobs.loop import page, picture
from poolscore.jobs.loop.arms import arms_of
from poolscore.jobs.loop.curve import Point, as_csv, endings, in_words, labels_to, read_points
from poolscore.jobs.loop.folders import SCORED, Round
from poolscore.jobs.loop.ways import Waiting

CURVE, PAGE = "curve.csv", "loop_report.html"


@dataclass(frozen=True)
class LoopResult:
    """Where a loop stands."""

    dir: str
    points: tuple[Point, ...]
    ended: Mapping[str, str | None]  # 'ARM/seed-S' → why; None: it goes on
    waiting: Waiting | None  # for people
    labels_to_target: Mapping[str, list[int | None]] | None  # arm → labels of each seed (None: not reached)
    in_words: str | None  # the same
    to_look_at: tuple[str, ...]  # folders of runs that did not end well in all
    curve: str  # CSV
    report: str  # HTML
    picture: str | None  # PNG; None: there is no matplotlib, or no metric

    @property
    def exit_code(self) -> int:
        """0: ended; 3: ended, with runs to look at; 4: waits for people."""
        if self.waiting is not None:
            return STOPPED
        return INCOMPLETE if self.to_look_at else DONE


def write_outputs(config: Config, root: Path, waiting: Waiting | None = None, *, final: bool = True) -> LoopResult:
    """Write them anew from what the rounds have recorded.

    Args:
        final: draw curve.png, too.
    """
    assert config.loop is not None
    arms, seeds, target = arms_of(config), config.loop.seeds, config.loop.stop.target
    points = read_points(root, arms, seeds)
    reached = labels_to(points, target, seeds) if target is not None else None
    words = in_words(reached, target) if reached and target is not None else None
    ended = endings(root, arms, seeds)
    pool = PurePath(config.pool.uri).name or config.pool.uri
    html = page.html(page.Told(root, points, ended, words, pool, _asked(config)))
    storage = LocalStorage(root)
    storage.publish(CURVE, lambda file: file.write(as_csv(points)))
    storage.publish(PAGE, lambda file: file.write(html.encode("utf-8", "backslashreplace")))
    return LoopResult(
        dir=str(root),
        points=tuple(points),
        ended=ended,
        waiting=waiting,
        labels_to_target=reached,
        in_words=words,
        to_look_at=tuple(_to_look_at(root, points)),
        curve=str(root / CURVE),
        report=str(root / PAGE),
        picture=picture.draw(root, points) if final and picture.can_draw() else None,
    )


def _asked(config: Config) -> str:
    assert config.loop is not None
    select = config.select
    by = config.selected_by if select.method == "topk" else f"{select.method} of {config.selected_by}"
    control = ", against random batches" if config.loop.control else ""
    return f"batches of {select.k:,} by {by}, {amount(len(config.loop.seeds), 'seed')}{control}"


def _to_look_at(root: Path, points: list[Point]) -> list[str]:
    rounds = (Round(root, point.arm, point.seed, point.round) for point in points)
    return [f"{at.place}/run" for at in rounds if (at.read(SCORED) or {}).get("exit_code")]
