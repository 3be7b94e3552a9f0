"""The graph of an exported program, from its JSON, without torch's own loader (why: `pt2_archive.py`).

The graph may call torch's operators on tensors and arithmetic on numbers, and nothing else: no Python function, no
operator that takes a file's name, none of a library's own, no graph within the graph. What these operators may do with
the numbers of a file is torch's part, as it is for the weights of any model. No text of the file is evaluated or
becomes code; shapes, guards and example inputs are not even looked at, since the model is probed and traced again.
"""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.pt2_archive import CONSTANTS, DTYPES, MODEL, WEIGHTS, Pt2Archive, Untrusted

SCHEMA = 8  # of the JSON, in all of torch 2.11 to 2.13
OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
MODULE = re.compile(r"\w+(\.\w+)*")
ARITHMETIC = (
    *(operator.eq, operator.ne, operator.le, operator.ge, operator.lt, operator.gt, operator.and_, operator.or_),
    *(operator.neg, operator.pos, operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv),
    *(operator.mod, operator.pow, operator.lshift, operator.rshift, math.trunc, math.ceil, math.floor),
    *(torch.sym_int, torch.sym_float, torch.sym_not, torch.sym_ite, torch.sym_max, torch.sym_min, torch.sym_sqrt),
)
NUMBERS: dict[str, Any] = {f"{function.__module__}.{function.__name__}": function for function in ARITHMETIC}
# Text that an operator may be given: how to pad, round, reduce, …
TEXT = {"approximate", "assert_msg", "equation", "indexing", "interpolation", "mode", "norm", "ord", "pad_mode"}
TEXT |= {"padding", "padding_side", "reduce", "rounding_mode", "side"}
FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
AS_IT_IS = ("as_int", "as_ints", "as_bool", "as_bools", "as_string", "as_strings")
KEYWORD = 2  # kind of an argument
NUMBER_GIVEN = "model.source: the program takes a number as input; export it with that number as a constant"


@dataclass(frozen=True)
class LooseGraph:
    """A graph and what it refers to.

    A placeholder's meta has `rows`: how many the program was exported for, None: any number. Other nodes have `module`:
    the name of the innermost module that the call stood in.
    """

    graph: Graph  # inputs → one tensor
    attributes: dict[str, Tensor | nn.Module]  # by the target of a get_attr node
    changed: tuple[str, ...]  # buffers that each call changes


def read_graph(archive: Pt2Archive) -> LooseGraph:
    """Build the graph.

    Raises:
        Untrusted: it calls something else than torch's operators on tensors, or holds pickles.
        ConfigError: it was written by a torch that is too new or too old, or is no model with one output.
    """
    program = archive.json(MODEL)
    if (version := program["schema_version"]["major"]) != SCHEMA:
        raise ConfigError(
            f"model.source: the program is of format {version}, this version reads {SCHEMA}; export it with torch "
            f"{torch.__version__.partition('+')[0]}"
        )
    tensors = archive.tensors(WEIGHTS) | archive.tensors(CONSTANTS)
    return _Reader(program["graph_module"], tensors).read()


def one_output(names: list[Any]) -> Any:
    """The only one of a program's outputs.

    Raises:
        ConfigError: there are more, or none.
    """
    if len(names) != 1:
        raise ConfigError(f"model.source: the program gives {len(names)} outputs; export a model that gives its logits")
    return names[0]


class _Reader:
    def __init__(self, module: Any, tensors: dict[str, Tensor]) -> None:
        self._json = module["graph"]
        self._signature = module["signature"]
        self._tensors = tensors
        self._graph = Graph()
        self._values: dict[str, Node] = {}  # by their names in the file

    def read(self) -> LooseGraph:
        used: dict[str, Tensor | nn.Module] = {}
        for spec, given in zip(self._signature["input_specs"], self._json["inputs"], strict=True):
            ((kind, what),) = spec.items()
            if kind == "user_input":
                self._placeholder(given)
            elif kind in ("parameter", "buffer", "tensor_constant"):
                target = what[f"{kind}_name"]
                if not MODULE.fullmatch(target):
                    raise Untrusted(f"has a tensor of the name {target!r}")
                used[target] = self._tensors[target]
                self._values[what["arg"]["name"]] = self._graph.create_node("get_attr", target)
            elif kind != "constant_input":
                raise Untrusted(f"takes an input of the kind {kind}")
        for node in self._json["nodes"]:
            self._call(node)
        return LooseGraph(self._graph, used, self._outputs())

    def _placeholder(self, given: Any) -> None:
        ((kind, what),) = given.items()
        if kind != "as_tensor":
            raise ConfigError(NUMBER_GIVEN)
        placeholder = self._values[what["name"]] = self._graph.placeholder(what["name"])
        sizes = self._json["tensor_values"][what["name"]]["sizes"]
        placeholder.meta["rows"] = sizes[0].get("as_int") if sizes else 1

    def _call(self, node: Any) -> None:
        target = _operator(node["target"])
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for given in node["inputs"]:
            value = self._argument(given["arg"])
            if given.get("kind") == KEYWORD:
                kwargs[given["name"]] = value
            else:
                args.append(value)
        call = self._graph.call_function(target, tuple(args), kwargs)
        call.meta["module"] = _module(node["metadata"].get("nn_module_stack", ""))
        outputs = [_names(output) for output in node["outputs"]]
        if len(outputs) == 1 and isinstance(outputs[0], str):
            self._values[outputs[0]] = call
        else:
            several = outputs[0] if len(outputs) == 1 and isinstance(outputs[0], list) else outputs
            for i, name in enumerate(several):
                if name is not None:
                    self._values[name] = self._graph.call_function(operator.getitem, (call, i))

    def _argument(self, argument: Any) -> Any:
        ((kind, value),) = argument.items()
        match kind:
            case "as_none":
                return None
            case "as_float":
                return float(value)  # the file writes Infinity and NaN as text
            case "as_floats":
                return [float(x) for x in value]
            case "as_complex":
                return complex(value["real"], value["imag"])
            case "as_tensor":
                return self._values[value["name"]]
            case "as_tensors":
                return [self._values[x["name"]] for x in value]
            case "as_optional_tensor":
                return self._argument(value)
            case "as_optional_tensors":
                return [self._argument(x) for x in value]
            case "as_sym_int" | "as_sym_float" | "as_sym_bool":
                return self._values[value["as_name"]] if "as_name" in value else self._argument(value)
            case "as_sym_ints" | "as_sym_floats" | "as_sym_bools":
                return [self._argument({kind[:-1]: x}) for x in value]
            case "as_scalar_type":
                return DTYPES[value]
            case "as_memory_format":
                return FORMATS[value]
            case "as_layout" if value == 7:
                return torch.strided
            case "as_device":
                return torch.device("cpu")  # wherever it was exported; the caller moves it
        if kind not in AS_IT_IS:
            raise Untrusted(f"has an argument of the kind {kind}")
        return value

    def _outputs(self) -> tuple[str, ...]:
        changed, wanted = [], []
        for spec, given in zip(self._signature["output_specs"], self._json["outputs"], strict=True):
            ((kind, what),) = spec.items()
            if kind == "user_output":
                wanted.append(self._argument(given))
            else:
                changed.append(str(what.get("buffer_name", kind)))
        self._graph.output(one_output(wanted))
        return tuple(changed)


def _operator(target: str) -> Any:
    if target in NUMBERS:
        return NUMBERS[target]
    match = OPERATOR.fullmatch(target)
    found = match and getattr(getattr(torch.ops.aten, match[1], None), match[2], None)
    if not isinstance(found, torch._ops.OpOverload):
        raise Untrusted(f"calls {target}, which is no operator of this torch on tensors")
    if any("str" in str(argument.type) and argument.name not in TEXT for argument in found._schema.arguments):
        raise Untrusted(f"calls {target}")
    return found


def _names(output: Any) -> Any:
    """The name or names of an output; None where there is none."""
    ((kind, value),) = output.items()
    match kind:
        case "as_tensor":
            return value["name"]
        case "as_sym_int" | "as_sym_float" | "as_sym_bool":
            return value["as_name"]
        case "as_tensors":
            return [x["name"] for x in value]
        case "as_optional_tensors":
            return [_names(x) for x in value]
    return None


def _module(stack: str) -> str:
    """The innermost module of torch's record "key,path,type;key,path,type"."""
    parts = stack.rpartition(";")[2].split(",")
    return parts[1] if len(parts) > 1 and MODULE.fullmatch(parts[1]) else ""
