"""What can be measured without a model and a pool of one's own: built-in networks, and rows of the kind they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from poolscore.engine.errors import ConfigError
from poolscore.jobs.bench.networks import POSITIONS

Kind = Literal["jpeg", "pixels", "tokens", "features"]


@dataclass(frozen=True)
class Subject:
    """A network of `networks.py`, and rows that it takes."""

    factory: str  # in networks.py
    kind: Kind
    size: int  # edge of a picture in pixels, tokens of a text, or number of features
    classes: int
    about: str  # of this size


SUBJECTS: dict[str, Subject] = {
    "resnet18": Subject("resnet18", "jpeg", 224, 1000, "ResNet-18, dropout before its head"),
    "resnet50": Subject("resnet50", "jpeg", 224, 1000, "ResNet-50, dropout before its head"),
    "vgg16": Subject("vgg16", "jpeg", 224, 1000, "VGG-16, dropout in its head of three layers"),
    "vit_b16": Subject("vit_b16", "jpeg", 224, 1000, "ViT-B/16, dropout everywhere"),
    "bert_base": Subject("bert_base", "tokens", 64, 77, "BERT-base, dropout everywhere"),
    "mlp": Subject("mlp", "features", 64, 10, "perceptron of {size}-512-512-10, dropout behind both hidden layers"),
}


def subject_of(name: str, size: int | None, pixels: bool) -> Subject:
    """A built-in subject.

    Args:
        size: see Subject; default: the network's own.
        pixels: pictures as uint8 tensors instead of JPEGs.

    Raises:
        ConfigError: there is none of this name, or it has no such form.
    """
    if name not in SUBJECTS:
        raise ConfigError(f"bench: '{name}' is neither a file nor a built-in network ({', '.join(SUBJECTS)})")
    found = SUBJECTS[name]
    if pixels and found.kind != "jpeg":
        raise ConfigError(f"bench --pixels: {name} takes {found.kind}, no pictures; leave it out")
    if size is not None and name == "vit_b16" and size % 16:
        raise ConfigError(f"bench --size: {name} cuts pictures into patches of 16 pixels; {size} is no multiple of 16")
    if size is not None and name == "bert_base" and size > POSITIONS:
        raise ConfigError(f"bench --size: {name} takes texts of at most {POSITIONS} tokens, got {size}")
    kind: Kind = "pixels" if pixels else found.kind
    size = size or found.size
    return Subject(found.factory, kind, size, found.classes, found.about.format(size=size))


def config_of(subject: Subject, pool: str, run_dir: str) -> dict[str, Any]:
    """The configuration of a job over a pool of `pools.write_pool`."""
    args: Mapping[str, int] = {
        "vit_b16": {"pixels": subject.size},
        "mlp": {"features": subject.size},
    }.get(subject.factory, {})
    return {
        "pool": {"uri": pool, "id": "id", **_input_of(subject)},
        "model": {
            "source": f"poolscore.jobs.bench.networks:{subject.factory}",
            "args": {"classes": subject.classes, **args},
            "task": "multiclass",
            "classes": subject.classes,
        },
        "select": {"k": 1},
        "shortlist": {"rows": 0},
        "run": {"dir": run_dir, "executor": "local", "batch_size": "auto", "verify_rows": 0},
    }


def _input_of(subject: Subject) -> dict[str, Any]:
    normal = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}  # of ImageNet
    match subject.kind:
        case "jpeg":
            return {
                "input": "image",
                "decode": {"kind": "image", "resize": subject.size, "crop": subject.size, **normal},
            }
        case "pixels":
            shape = [3, subject.size, subject.size]
            return {"input": "pixels", "decode": {"kind": "tensor", "shape": shape, "mean": [127.5], "std": [64.0]}}
        case "tokens":
            return {"inputs": {"text": {"kind": "text", "column": "tokens", "length": subject.size}}}
        case "features":
            return {"input": [f"f{i}" for i in range(subject.size)], "decode": {"kind": "features"}}
