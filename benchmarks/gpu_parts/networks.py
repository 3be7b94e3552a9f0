"""What T passes cost beside one: ResNet-50 with dropout before its head, ViT-B/16 with dropout everywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from by_hand import loop
from frontier_resnet import Precision, first_batch, gemm, measure, score

from gpu_parts.jobs import small_job, write_tensors
from gpu_parts.part import BF16_FLOP_PER_S, Result, figure
from poolscore.engine import prepare_job
from poolscore.engine.worker.profile import numeric_settings
from poolscore.jobs.bench.networks import vit_b16
from poolscore.jobs.bench.timing import interleaved_ms, medians

PRECISION: dict[str, Precision] = {"cuda": "bf16", "cpu": "fp32"}
PASSES = 20
VIT_BATCH, VIT_EDGE = {"cuda": 128, "cpu": 2}, {"cuda": 224, "cpu": 32}
RATIO = 1.05  # of time(T=100) / time(T=1), at most


def resnet(device: str, folder: Path, batch: int) -> Result:
    """Rows/s of T=1, 20, 100 from device tensors, against repeating at the input and loops by hand.

    Predicted, a row: 8.2 GFLOP in 10.4 us at the ceiling; 11 million activations of the convolutions written, read,
    written and read again, 89 MB in bfloat16, in 20.7 us; little of it at the same time, and cuDNN's convolutions
    at two thirds of the ceiling: 36 us, 28,000 rows/s. T=100 adds 0.41 GFLOP (0.5 us) and 0.4 MB of logits, written and
    read (0.2 us): a ratio of 1.02. Repeating costs T times one pass, and a loop by hand as much.
    """
    if device == "cuda":
        found: Result = measure(device, "bf16", batch=batch, repeats=10, by_hand=True)
    else:
        found = measure(device, "fp32", batch=2, pixels=32, repeats=1, by_hand=True)
    rate, of_gemm = found["images_per_second"], found["of_gemm"]
    gemm_flops = found["GFLOP_per_s"]["gemm"] * 1e9
    lines = [figure("matrix product of the same minutes", round(gemm_flops / 1e12, 1), "TFLOP/s", 790)]
    lines += [figure(name, value, "rows/s", 28_000 if name == "split, T=1" else None) for name, value in rate.items()]
    lines.append(figure("time of T=100 / T=1", found["T=100 / T=1"], "", 1.02, f"<= {RATIO}"))
    lines.append(figure("split, T=20, of the matrix product", of_gemm["split, T=20"], "", 0.29))
    lines.append(figure("repeated / split, T=20", found["repeated / split, T=20"], "", 20, ">= 18"))
    return found | {"ok": True, "figures": lines}


def vit(device: str, folder: Path) -> Result:
    """ViT-B/16, dropout everywhere, T=20, from device tensors: the engine beside a loop by hand, also compiled.

    Predicted: 35 GFLOP a pass and row, and attention's weights, which dropout forces into memory (5.6 MB a layer in
    all its steps), with the perceptron's activations some 176 MB. So 45 + 41 us a pass at both ceilings: 580 rows/s at
    T=20, the compiled loop as many. Splitting saves nothing here.
    """
    batch, edge, precision = VIT_BATCH[device], VIT_EDGE[device], PRECISION[device]
    config = small_job(
        write_tensors(folder / "pool", batch, edge),
        folder / "run",
        device,
        batch,
        model={"source": "poolscore.jobs.bench.networks:vit_b16", "args": {"pixels": edge}, "classes": 1000},
        pool={"decode": {"kind": "tensor", "shape": [3, edge, edge], "mean": [127.5], "std": [64.0]}},
        passes={"count": PASSES, "precision": precision},
        select={"k": 1},
        run={"batch_size": batch, "shard_rows": batch},
    )
    with numeric_settings(config.run.threads):
        prepared = prepare_job(config)
        given = first_batch(prepared)
        (x,) = given[0].values()
        ways: dict[str, Callable[[], object]] = {"poolscore": partial(score, prepared.scorer, given)}
        for how in ("", ", compiled"):
            model = vit_b16(pixels=edge).to(device)
            ways[f"a loop by hand{how}"] = loop(model, x, precision, PASSES, compiled=bool(how))
        ways["matrix product"] = gemm(device, precision)
        ms = medians(interleaved_ms(ways, 10 if device == "cuda" else 1, warm_up=1, device=device))
    del ways
    rates = {name: round(batch / value * 1e3, 1) for name, value in ms.items() if name != "matrix product"}
    flops = prepared.cost.all_passes * batch
    lines = [figure(name, rate, "rows/s", None if name == "a loop by hand" else 580) for name, rate in rates.items()]
    hand = max(rate for name, rate in rates.items() if name != "poolscore")
    lines.append(figure("poolscore / the faster loop by hand", round(rates["poolscore"] / hand, 2), "", 1.0, ">= 1"))
    floor_ms = flops / BF16_FLOP_PER_S * 1e3
    return {
        "ok": True,
        "figures": lines,
        "batch": batch,
        "ms": {name: round(value, 3) for name, value in ms.items()},
        "GFLOP": round(flops / 1e9, 1),
        "predicted_floor_ms": round(floor_ms, 2),
        "compiled": prepared.job.compiled is not None,
        "uncompiled_because": prepared.uncompiled_because,
    }


resnet_of_1024 = partial(resnet, batch=1024)
resnet_of_256 = partial(resnet, batch=256)
