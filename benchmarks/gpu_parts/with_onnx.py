"""ONNX Runtime on the GPU: does it agree with torch? Its library is too large for one call (benchmarks/NOTES.md)."""

from __future__ import annotations

from pathlib import Path

from frontier_resnet import first_batch, prepare, write_pool
from resnet import export_onnx

from gpu_parts.part import Result, figure
from poolscore.engine import PoolscoreError
from poolscore.engine.worker.profile import numeric_settings

BATCH, EDGE = {"cuda": 64, "cpu": 2}, {"cuda": 224, "cpu": 32}
PASSES = 20
LARGEST = 1e-2  # of logits of about ±1: TF32 in convolutions may be on in one of them


def agrees_with_torch(device: str, folder: Path) -> Result:
    """Logits of the same rows and masks by both, ResNet-50 in float32."""
    try:
        import onnxruntime
    except ImportError as error:
        return _not_here(str(error))
    if device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return _not_here(f"onnxruntime {onnxruntime.__version__} here has no CUDA provider")
    write_pool(folder, BATCH[device], EDGE[device])
    run = {"device": device, "batch_size": BATCH[device]}
    with numeric_settings(2):
        try:
            source = export_onnx(folder / "resnet50.onnx", EDGE[device])
            onnx = prepare(folder, {"count": PASSES}, run, source=str(source))
        except (ImportError, PoolscoreError) as error:
            return {**_not_here(f"{type(error).__name__}: {error}"), "ok": False}
        torch = prepare(folder, {"count": PASSES, "compile": False}, run)
        given = first_batch(torch)
        one, other = (job.scorer.model.logits(*given).float().cpu() for job in (onnx, torch))
        difference = float((one - other).abs().max())
    lines = [figure("largest difference of a logit", difference, "", 1e-3)]
    return {"ok": difference < LARGEST, "figures": lines, "logits_are_about": float(other.abs().mean())}


def _not_here(why: str) -> Result:
    """Left out, and said so; it is no failure of ours."""
    return {"ok": True, "left_out": why, "figures": [figure("left out", why[:100])]}
