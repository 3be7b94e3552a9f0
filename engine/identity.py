"""What a run's scores depend on (`identity` in run.json): by it a run is continued or refused, naming what differs.

Needs no torch: `prepare/job.py` makes a job's identity, this compares two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from poolscore.engine.config import Config, flatten
from poolscore.engine.errors import ConfigError
from poolscore.engine.pool.changes import changes, files_of
from poolscore.engine.pool.plan import Plan
from poolscore.engine.run.directory import RunDirectory, redacted

Identity = Mapping[str, Any]

# Configuration that does not change a score: a run may be resumed with other values.
INCIDENTAL = (
    *("pool.uri", "pool.exclude", "pool.bad_files", "model.path", "model.weights", "model.trust"),
    *("select.", "shortlist.", "check", "run.", "prices."),
)
ESSENTIAL = ("run.batch_size", "run.threads")
POOL, EXCLUDED, TOKENIZERS, BASE = "the pool", "the excluded ids", "the tokenizers", "the run that it extends"
CODE = "the model's code"
# Two runs that differ in nothing else gave their scores by one rule: of other rows, or with other last bits.
OF_ROWS = (POOL, EXCLUDED, BASE, *ESSENTIAL, "passes.split", "passes.compile", "passes.rows_per_call")
# Settings as older versions wrote them lack what is new; these digests they had in the numeric profile alone, or not.
NEW = (TOKENIZERS, CODE)
GONE = ("the secret settings",)  # which older versions wrote, and redacted: a secret that changes changes no score


def settings_of(config: Config) -> dict[str, Any]:
    """The configuration's part of an identity. A tokenizer is known by its digest, wherever its file lies."""
    incidental = (*INCIDENTAL, "model.source") if config.model.is_file else INCIDENTAL
    return {
        key: _without_path(key, value)
        for key, value in flatten(config).items()
        if key in ESSENTIAL or not any(key.startswith(prefix) for prefix in incidental)
    }


def differences(here: Identity, there: Identity, config: Config, ignoring: Iterable[str] = ()) -> list[str]:
    """Keys in which the identity of a job and that of a run differ.

    A setting that the run lacks, because its version did not know it, has its default there.

    Args:
        here: of the job with this configuration.
        there: of the run, out of its run.json.
    """
    here, there = redacted(here), _completed(there, config)
    unknown = [key for key in NEW if key not in there]
    keys = [key for key in dict.fromkeys([*there, *here]) if key not in {*ignoring, *unknown, *GONE}]
    return [key for key in keys if _json(here.get(key)) != _json(there.get(key))]


def require_same(run: RunDirectory, here: Identity, plan: Plan, config: Config) -> None:
    """Refuse to mix two runs, naming what differs.

    Raises:
        ConfigError: the run is another one.
    """
    there = run.info["identity"]
    if different := differences(here, there, config):
        known = _completed(there, config)
        told = ", ".join(
            f"the pool ({_pool_in_words(run, plan, config)})" if key == POOL else in_words(key, here, known)
            for key in different
        )
        raise ConfigError(
            f"run.dir: {run.storage.root} holds a run that differs in {told}; choose another run.dir, or --fresh to "
            "move the old run aside"
        )


def in_words(key: str, here: Identity, there: Identity) -> str:
    """One difference."""
    if not key.startswith("the "):
        return f"{key} ({there.get(key)}, now {redacted(here).get(key)})"
    return f"{key}{_MEANING.get(key, '')}"


_MEANING = {
    "the model": " (its layers are others)",
    CODE: " (the Python that model.source names says something else)",
    "the weights": " (they hold other numbers)",
    EXCLUDED: " (pool.exclude lists others)",
    TOKENIZERS: " (decode.tokenizer is another file)",
    BASE: " (give --extend as when it was begun)",
}


def _pool_in_words(run: RunDirectory, plan: Plan, config: Config) -> str:
    cut = run.info["config"].get("run", {}).get("shard_rows")
    if cut != config.run.shard_rows:
        return f"run.shard_rows was {cut}, now {config.run.shard_rows}"
    found = changes(files_of(run.plan), files_of(plan))
    only_more = found.came and not (found.gone or found.resized)
    hint = f"; score --extend {run.storage.root} --set run.dir=ANOTHER scores those alone" if only_more else ""
    return f"{found}{hint}" if str(found) else "a file of the same name and size holds other rows"


def _completed(there: Identity, config: Config) -> dict[str, Any]:
    """`there` with the settings that its version did not know, at their defaults."""
    essential = settings_of(config)
    data = config.model_dump(mode="json")
    for key in essential:
        section, dot, name = key.partition(".")
        holder, name = (data[section], name) if dot else (data, section)
        if key in there:
            holder[name] = there[key]
        else:
            del holder[name]
    try:
        return {**there, **redacted(settings_of(Config.model_validate(data)))}
    except ValidationError:  # a setting that is not allowed any more, or is required by now
        return dict(there)


def _without_path(key: str, value: Any) -> Any:
    if key == "pool.decode" and value is not None:
        return {name: setting for name, setting in value.items() if name != "tokenizer"}
    if key == "pool.inputs":
        return {name: _without_path("pool.decode", decode) for name, decode in value.items()}
    return value


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
