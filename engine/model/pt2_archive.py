"""What a `.pt2` file holds, read without running anything: JSON, and tensors as raw bytes.

A `.pt2` is a zip: `models/model.json` is the graph, `data/weights` and `data/constants` are its tensors. A tensor is
raw bytes, described in JSON; what torch cannot write in that way (tensor subclasses, custom objects) is a pickle, and
so are the example inputs. `torch.export.load` unpickles what it finds, and it evaluates text of the JSON as Python
(shapes, through sympy): a file without a single pickle can run code there. So nothing of an untrusted file reaches it.
Here members are read by name with Python's own `zipfile`, nothing is unpacked to disk, pickles are never opened, and
the JSON is data: `pt2_graph.py` builds the graph from it.

Source: torch 2.11 and 2.13, torch/export/pt2_archive/_package.py and torch/_export/serde/schema.py (version 8).
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from poolscore.engine.errors import ConfigError

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
DTYPES = {  # by torch's numbers in the file
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}


class Untrusted(Exception):
    """What a file holds that only torch's own loader can open, which may run code of its author's."""


class Pt2Archive:
    """A `.pt2` file on disk.

    Raises:
        ConfigError: it is no such file, or its members point outside of it or unpack to more than it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with ZipFile(path) as file:
                members = file.infolist()
        except (OSError, BadZipFile) as error:
            raise ConfigError(f"model.source: {path} is not a .pt2 file of torch.export.save ({error})") from error
        for member in members:
            name = PurePosixPath(member.filename)
            if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
                raise ConfigError(f"model.source: {path} names a file outside of itself ({name}); it is not opened")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ConfigError(f"model.source: {path} unpacks to more than it is; torch.export.save does not write such")
        self._members = {member.filename.partition("/")[2]: member for member in members}  # below its one folder
        if MODEL not in self._members:
            raise ConfigError(
                f"model.source: {path} holds no exported program; write it with torch.export.save (torch 2.11 or newer)"
            )

    def json(self, member: str) -> Any:
        """A member's JSON."""
        return json.loads(self._read(member))

    def tensors(self, config: str) -> dict[str, Tensor]:
        """The tensors that `config` (WEIGHTS or CONSTANTS) lists, by name. Those that share memory go on doing so.

        Raises:
            Untrusted: one of them is a pickle.
        """
        if config not in self._members:
            raise Untrusted(f"holds its tensors as one pickle (no {config})")
        folder = config.rpartition("/")[0]
        flat: dict[tuple[str, torch.dtype], Tensor] = {}
        tensors: dict[str, Tensor] = {}
        for name, entry in self.json(config)["config"].items():
            member = f"{folder}/{entry['path_name']}"
            if entry["use_pickle"] or entry["tensor_meta"] is None:
                raise Untrusted(f"holds a pickle ({member})")
            meta = entry["tensor_meta"]
            dtype = DTYPES[meta["dtype"]]
            if (member, dtype) not in flat:
                flat[member, dtype] = self._flat(member, dtype)
            size, stride = ([n["as_int"] for n in meta[key]] for key in ("sizes", "strides"))
            tensors[name] = flat[member, dtype].as_strided(size, stride, meta["storage_offset"]["as_int"])
        return tensors

    def _flat(self, member: str, dtype: torch.dtype) -> Tensor:
        data = bytearray(self._read(member))
        return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)

    def _read(self, member: str) -> bytes:
        with ZipFile(self._path) as file:
            return file.read(self._members[member])
