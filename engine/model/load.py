"""Build the network from the user's factory and load its weights, without running anything that they hide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from poolscore.engine.config import ModelConfig
from poolscore.engine.errors import ConfigError
from poolscore.engine.imports import add_to_path, import_name
from poolscore.engine.model.network import Network
from poolscore.engine.model.program import load_program
from poolscore.engine.model.recurrent import split_recurrent_layers
from poolscore.engine.model.torch_network import TorchNetwork
from poolscore.engine.storage.filesystem import fetch, on_disk, reason, require_bucket
from poolscore.engine.storage.uri import join, local_path
from poolscore.engine.worker.profile import numeric_settings

SHOWN = 3  # names of parameters in an error


def load_network(config: ModelConfig) -> Network:
    """The user's model with its weights, on the CPU.

    Raises:
        ConfigError: it cannot be loaded; one line each.
    """
    if config.source.endswith(".onnx"):
        from poolscore.engine.model.onnx.network import OnnxNetwork  # costs half a second that a torch model saves

        with _local(config.source, "model.source") as path:
            _fetch_weights_beside(config.source, path)
            return OnnxNetwork(path, config.source)
    return TorchNetwork(load_module(config))


def load_module(config: ModelConfig) -> nn.Module:
    """The user's model as a torch module: from a factory, or from a `.pt2` file.

    Raises:
        ConfigError: it cannot be loaded; one line each.
    """
    if config.source.endswith(".pt2"):
        with _local(config.source, "model.source") as path:
            return load_program(path, config.trust)
    return load_model(config)


def load_model(config: ModelConfig) -> nn.Module:
    """The module that the user's factory builds, with its weights.

    Raises:
        ConfigError: the factory or the weights do not give what is needed; one line each.
    """
    add_to_path(config.path)
    factory = import_name(config.source, "model.source")
    try:
        with numeric_settings(torch.get_num_threads()):  # whatever the factory sets, such as TF32, is put back
            model = factory(**config.args)
    except Exception as error:
        raise ConfigError(f"model.source: {config.source} fails: {type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.source: {config.source} gave {type(model).__name__}, not a torch.nn.Module")
    if any(torch.nn.parameter.is_lazy(value) for value in (*model.parameters(), *model.buffers())):
        raise ConfigError(f"model.source: {config.source} gave lazy layers without weights; give them their sizes")
    if config.weights is not None:
        with _local(config.weights, "model.weights") as path:
            _load_weights(model, path)
    split_recurrent_layers(model)
    return model.eval().requires_grad_(False)


@contextmanager
def _local(uri: str, key: str) -> Iterator[Path]:
    """The file on the local disk. Errors call it what the configuration calls it, not by the name of a copy."""
    try:
        with on_disk(uri) as path:
            try:
                yield path
            except ConfigError as error:
                raise ConfigError(str(error).replace(str(path), uri)) from error
    except FileNotFoundError as error:
        require_bucket(uri)
        raise ConfigError(f"{key}: there is no file {uri}") from error
    except OSError as error:
        raise ConfigError(f"{key}: {uri} cannot be read: {reason(error)}") from error


def _fetch_weights_beside(uri: str, copy: Path) -> None:
    """Large ONNX models keep their weights in files of the same folder."""
    if local_path(uri) is not None:
        return
    from poolscore.engine.model.onnx.read import files_beside

    for name in files_beside(copy):
        to = copy.parent / name
        to.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # onnx tells which one is missing
            fetch(join(uri.rpartition("/")[0], name), to)


def _load_weights(model: nn.Module, path: Path) -> None:
    state = _read_state(path)
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        raise ConfigError(
            f"model.weights: {path} does not fit the model: {_some('missing', missing)}{_some('unknown', unknown)}"
            "check model.source and model.args"
        )
    for name, value in own.items():
        if value.shape != state[name].shape:
            raise ConfigError(
                f"model.weights: {path} does not fit the model: '{name}' is {list(state[name].shape)} there, "
                f"{list(value.shape)} in the model"
            )
    model.load_state_dict(state)


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ConfigError(f"model.weights: there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make either reader fail in any way
        if isinstance(error, UnpicklingError) and "GLOBAL" in str(error):
            raise ConfigError(
                f"model.weights: {path} holds more than tensors and is not opened (it could run code); save the "
                "weights alone: torch.save(model.state_dict(), path), or as .safetensors"
            ) from error
        raise ConfigError(f"model.weights: {path} cannot be read: {_one_line(error)}") from error
    for wrapper in ("state_dict", "model"):  # how checkpoints of common trainers wrap the weights
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(
        isinstance(v, torch.Tensor) and isinstance(k, str) for k, v in state.items()
    ):
        raise ConfigError(f"model.weights: {path} is no state dict (names and tensors)")
    return state


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _some(what: str, names: list[str]) -> str:
    if not names:
        return ""
    return f"{what} {', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''}; "
