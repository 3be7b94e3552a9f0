"""Which device a driver and its workers use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from poolscore.engine.config import Config
from poolscore.engine.errors import ConfigError
from poolscore.engine.prepare import prepare_job
from poolscore.engine.worker.profile import choose_device, device_of_driver

Configure = Callable[..., Config]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def on_a_cluster(configure: Configure, **more: object) -> Config:
    run = {"executor": "ray", "address": "ray-head:6379", "device": "cuda", "max_workers": 8, "decode_threads": 6}
    return configure(run=run, **more)


def test_a_driver_without_gpu_prepares_a_job_for_workers_with_some(digit_config: Configure) -> None:
    """As under KubeRay, where the GPU machines come once they are asked for."""
    prepared = prepare_job(on_a_cluster(digit_config))
    assert prepared.scorer.decoder.device.type == "cpu"
    assert prepared.job.config.run.device == "cuda"
    assert prepared.job.compiled is None
    assert prepared.compile_on  # by a worker's machine: test_compiled.py
    assert prepare_job(on_a_cluster(digit_config, passes={"compile": True})).compile_on


def test_without_a_cluster_cuda_needs_a_gpu_here(digit_config: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in ({"executor": "ray"}, {"executor": "local", "address": "ray-head:6379"}):
        with pytest.raises(ConfigError, match="torch finds no GPU here"):
            prepare_job(digit_config(run={"device": "cuda", **run}))
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")  # as Ray tells a job
    assert device_of_driver(digit_config(run={"executor": "ray", "device": "cuda"})).type == "cpu"


def test_a_worker_is_never_content_with_a_cpu_instead(digit_config: Configure) -> None:
    with pytest.raises(ConfigError, match="torch finds no GPU here"):
        choose_device(on_a_cluster(digit_config))
