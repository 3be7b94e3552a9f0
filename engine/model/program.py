"""A saved `torch.export` program (`.pt2`) as a module that is probed, traced and cut like one from a factory."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Interpreter, Node
from torch.fx.node import map_aggregate

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.dropout import ATTENTION, DROPOUT_CALLS
from poolscore.engine.model.probe import ROOT
from poolscore.engine.model.pt2_archive import Pt2Archive, Untrusted
from poolscore.engine.model.pt2_graph import NUMBER_GIVEN, LooseGraph, one_output, read_graph
from poolscore.engine.model.trace import quietly, take_out_checks

ATEN = torch.ops.aten
BATCH_NORM = {ATEN.batch_norm.default, ATEN._native_batch_norm_legit_functional.default, ATEN.native_batch_norm.default}
DECOMPOSED = {ATEN.bernoulli.default, ATEN.bernoulli.p, ATEN.bernoulli_.float, ATEN.rand_like.default}


def load_program(path: Path, trust: bool) -> Program:
    """Open a `.pt2` file.

    Args:
        trust: let torch's own loader open it, which unpickles and may run code of the file's author. Without it
            nothing in the file can run, and what needs the loader is refused.

    Raises:
        ConfigError: it cannot be opened, or cannot be scored; one line.
    """
    if not path.is_file():
        raise ConfigError(f"model.source: there is no file {path}")
    try:
        archive = Pt2Archive(path)
        loose = _load_with_torch(path) if trust else read_graph(archive)
        _check(loose)
        return Program(loose)
    except ConfigError:
        raise
    except Untrusted as reason:
        raise ConfigError(
            f"model.source: {path} {reason}; opening that can run code of whoever wrote the file. If you trust them "
            "set model.trust: true; or have the model written by `poolscore export`"
        ) from reason
    except Exception as error:  # a damaged file can make either reader fail in any way
        text = " ".join(str(error).split())[:300]
        raise ConfigError(f"model.source: {path} cannot be read: {type(error).__name__}: {text}") from error


def needs_trust(path: Path) -> str | None:
    """Why a `.pt2` file that torch wrote is not opened without trust; None if it is."""
    try:
        read_graph(Pt2Archive(path))
    except Untrusted as reason:
        return str(reason)
    return None


class Scope(nn.Module):
    """A module of the exported model: it holds its tensors and makes its dropout calls, so that they bear its name."""

    def forward(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """The result of `call`."""
        return call(*args, **kwargs)


class Program(Scope):
    """The exported model. It takes its inputs by name, or its only one by position; the training flags and the device
    that it was exported with do not matter."""

    def __init__(self, loose: LooseGraph) -> None:
        super().__init__()
        for name, value in loose.attributes.items():
            path, _, leaf = name.rpartition(".")
            if isinstance(value, Tensor):
                self._scope(path).register_buffer(leaf, value.detach())
            else:
                self._scope(path).add_module(leaf, value)
        self._graph = loose.graph
        take_out_checks(self._graph)
        self.inputs = tuple(str(node.target) for node in self._graph.nodes if node.op == "placeholder")
        if not self.inputs:
            raise ConfigError("model.source: the program has no input")
        self._follow_the_input()
        self._call_in_scopes()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The one output of the program."""
        if len(args) + len(kwargs) != len(self.inputs) or not set(kwargs) <= set(self.inputs):
            given = ", ".join(map(repr, kwargs)) if kwargs else "one without a name"
            raise ConfigError(
                f"model.source: the program takes the inputs {', '.join(map(repr, self.inputs))}, pool.inputs gives "
                f"{given}"
            )
        interpreter = Interpreter(self, graph=self._graph)
        interpreter.extra_traceback = False
        return interpreter.run(*args, *(kwargs[name] for name in self.inputs[len(args) :]), enable_io_processing=False)

    def extra_repr(self) -> str:
        """Every call: two programs with the same description are the same, whatever their values are called."""
        places = {node: f"%{i}" for i, node in enumerate(self._graph.nodes)}

        def placed(value: Any) -> Any:
            return places[value] if isinstance(value, Node) else value

        return "\n".join(
            f"{places[node]} {node.op} {_called(node.target)} {map_aggregate((node.args, node.kwargs), placed)}"
            for node in self._graph.nodes
        )

    def _scope(self, path: str) -> nn.Module:
        module: nn.Module = self
        for name in path.split(".") if path else ():
            if name not in module._modules:
                module.add_module(name, Scope())
            module = module.get_submodule(name)
        return module

    def _follow_the_input(self) -> None:
        """Tensors that are made on the way are made where the input is, not where the program was exported."""
        placeholders = [node for node in self._graph.nodes if node.op == "placeholder"]
        with self._graph.inserting_after(placeholders[-1]):
            device = self._graph.call_function(getattr, (placeholders[0], "device"))
        for node in self._graph.nodes:
            node.args, node.kwargs = map_aggregate(
                (node.args, node.kwargs), lambda value: device if isinstance(value, torch.device) else value
            )

    def _call_in_scopes(self) -> None:
        for node in list(self._graph.nodes):
            name = node.meta.get("module")
            if name and (node.target in DROPOUT_CALLS or node.target in ATTENTION):
                self._scope(name)
                with self._graph.inserting_before(node):
                    call = self._graph.call_module(name, (node.target, *node.args), node.kwargs)
                node.replace_all_uses_with(call)
                self._graph.erase_node(node)


def _check(loose: LooseGraph) -> None:
    """Refuse what cannot be scored, where the trial run would only say so less clearly."""
    for node in loose.graph.nodes:
        where = f"'{node.meta.get('module') or ROOT}' of the program"
        if node.op == "placeholder" and node.meta["rows"] is not None:
            raise ConfigError(
                f"model.source: the program was exported for batches of {node.meta['rows']} rows only; export it again "
                "with a dynamic first dimension, as `poolscore export` does"
            )
        if node.target in DECOMPOSED:
            raise ConfigError(
                f"model.source: {where} draws random numbers itself, as decomposed dropout does; save the program "
                "before run_decompositions, or write it with `poolscore export`"
            )
        if node.target in BATCH_NORM and len(node.args) > 5 and node.args[5] is True:
            raise ConfigError(
                f"model.source: {where} has BatchNorm in training mode, so rows would depend on their batch; export "
                "it in eval mode, or with `poolscore export`, which keeps the dropout live"
            )
    if loose.changed:
        raise ConfigError(
            f"model.source: each call of the program changes '{loose.changed[0]}'; export it in eval mode"
        )


def _load_with_torch(path: Path) -> LooseGraph:
    with quietly():
        program = torch.export.load(path)
        module = program.module(check_guards=False)
    graph = Graph()
    copies: dict[Node, Node] = {}
    attributes: dict[str, Tensor | nn.Module] = {}
    for node in module.graph.nodes:
        if node.op == "output":
            graph.output(copies[one_output(list(node.args[0]))])
        elif node.op == "placeholder" and isinstance(node.meta["val"], torch.SymInt | torch.SymFloat | torch.SymBool):
            raise ConfigError(NUMBER_GIVEN)
        elif node.op == "placeholder" and not isinstance(node.meta["val"], Tensor):
            copies[node] = node.meta["val"]  # a constant
        else:
            copy = copies[node] = graph.node_copy(node, copies.__getitem__)
            stack = list((node.meta.get("nn_module_stack") or {"": ("", "")}).values())
            copy.meta = {"module": stack[-1][0]}
            if node.op == "placeholder":
                rows = node.meta["val"].shape[:1]
                copy.meta["rows"] = rows[0] if rows and isinstance(rows[0], int) else None
            elif node.op == "get_attr":
                attributes[node.target] = _attribute(module, node.target)
    return LooseGraph(graph, attributes, tuple(program.graph_signature.buffers_to_mutate.values()))


def _attribute(module: Any, target: str) -> Any:
    for name in target.split("."):
        module = getattr(module, name)
    return module


def _called(target: Any) -> str:
    """A name that is the same in every process, which a Python function's text is not."""
    return f"{target.__module__}.{target.__qualname__}" if isinstance(target, FunctionType) else str(target)
