"""submit: how `poolscore submit` brings a job to a cluster, and where its driver runs. No part of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from poolscore.engine.config.section import Number, Positive, PositiveNumber, Section


class SubmitConfig(Section):
    """What travels to the machines of a cluster. They have torch, Ray and poolscore's other dependencies."""

    address: str | None = None  # of the dashboard; default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, this machine's
    bring: Literal["package", "none"] = "package"  # the poolscore that is installed here; none: the machines have it
    python: str = "python"  # the command that starts Python there
    working_dir: str | None = None  # a folder: code, weights, lists; paths that lie in it are read from the copy
    py_modules: tuple[str, ...] = ()  # packages and .py files; those that model.path has and source names go anyway
    pip: tuple[str, ...] = ()  # small packages that the machines lack
    env_vars: dict[str, str] = {}  # of all its processes; no secrets: who may ask for the cluster's jobs sees them
    # Of the driver. None given: on a machine without GPUs, where some have them, else on the head node.
    entrypoint_num_cpus: Annotated[Number, Field(ge=0)] | None = None
    entrypoint_memory: Positive | None = None  # bytes
    entrypoint_resources: dict[str, PositiveNumber] = {}
    entrypoint_label_selector: dict[str, str] = {}
