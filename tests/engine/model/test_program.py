"""`.pt2` files as models: the same answers as the module they came from, and nothing in a file runs without trust."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import dropout_nets as dn
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn import functional

from poolscore.engine.errors import ConfigError
from poolscore.engine.model.probe import probe_model
from poolscore.engine.model.program import load_program
from poolscore.engine.model.torch_network import TorchNetwork

Edit = Callable[[dict[str, Any]], None]


def save(model: nn.Module, path: Path, *args: Tensor, rows: Any = None, decomposed: bool = False) -> Path:
    """As users do it."""
    rows = rows or Dim("rows", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(model, args, dynamic_shapes=tuple({0: rows} for _ in args))
        torch.export.save(program.run_decompositions() if decomposed else program, path)
    return path


class Net(nn.Module):
    """Dropout by module, function and attention; a buffer, a constant, tensors made on the way, a float infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.4))
        self.register_buffer("shift", torch.linspace(0, 1, 8), persistent=False)
        self.constant = torch.ones(8)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        h = self.norm(self.a(input))
        h = self.block(h) + self.block(h).sin() + self.shift * self.constant
        q = h[:, None, None].expand(-1, 2, 3, -1)
        bias = torch.zeros(3, 3, device=h.device).masked_fill(torch.ones(3, 3).triu(1).bool(), -torch.inf)
        y = functional.scaled_dot_product_attention(q, q, q, bias, dropout_p=0.3)
        low, high = functional.dropout2d(y, 0.2, True).mean((1, 2)).chunk(2, -1)
        return torch.cat([low, high * torch.arange(4, device=h.device)], -1)[:, :3]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    model = Net().train()
    model.norm.eval()
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = Net().train()
    model.norm.eval()
    return save(model, tmp_path_factory.mktemp("saved") / "net.pt2", rows(3))


@pytest.fixture
def path(saved: Path, tmp_path: Path) -> Path:
    """A saved Net that a test may damage."""
    return Path(shutil.copy(saved, tmp_path))


def rows(n: int) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(n))


def edited(path: Path, edit: Edit | None = None, members: Mapping[str, bytes] | None = None) -> Path:
    """The file with another graph and other members."""
    new = path.with_name("edited.pt2")
    with ZipFile(path) as old, ZipFile(new, "w", ZIP_STORED) as file:
        data = {info.filename: old.read(info) for info in old.infolist()}
        root = next(iter(data)).partition("/")[0]
        if edit:
            program = json.loads(data[f"{root}/models/model.json"])
            edit(program)
            data[f"{root}/models/model.json"] = json.dumps(program).encode()
        data |= {f"{root}/{name}": content for name, content in (members or {}).items()}
        for name, content in data.items():
            file.writestr(name, content)
    return new


def error_of(path: Path, trust: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        load_program(path, trust)
    message = str(caught.value)
    assert message.startswith("model.source: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("trust", "training"), [(False, False), (True, True)])
def test_a_saved_program_scores_as_its_module(net: nn.Module, tmp_path: Path, trust: bool, training: bool) -> None:
    net.block.train(training)  # its flag goes into the file, and does not matter
    program = load_program(save(net, tmp_path / "net.pt2", rows(3)), trust)
    ours, theirs = dn.scorer(net, {"": rows(3)}, count=4), dn.scorer(program, {"": rows(3)}, count=4)
    assert [str(layer) for layer in ours.layers] == [str(layer) for layer in theirs.layers]
    assert [layer.name for layer in ours.layers] == ["block.1", "block.1", "(root)", "(root)"]
    assert theirs.cut is not None
    for n in (1, 5):
        assert theirs.logits({"": rows(n)}, dn.keys_of(n)).equal(ours.logits({"": rows(n)}, dn.keys_of(n)))
    assert theirs.without_dropout({"": rows(5)}).equal(ours.without_dropout({"": rows(5)}))
    named = program(input=rows(2))
    assert named.shape == (2, 3)


def test_both_readers_build_the_same_program(path: Path) -> None:
    plain, torchs = load_program(path, False), load_program(path, True)
    assert plain.extra_repr() == torchs.extra_repr()
    assert {k: v.dtype for k, v in plain.named_buffers()} == {k: v.dtype for k, v in torchs.named_buffers()}
    assert all(value.equal(plain.get_buffer(name)) for name, value in torchs.named_buffers())


def test_named_inputs(tmp_path: Path) -> None:
    case = dn.CASES["two inputs"]
    inputs = case.inputs(3)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = case.model()
            self.embed = self.net.embed

        def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
            return self.net(tokens=tokens, features=features)

    program = load_program(save(Named().train(), tmp_path / "net.pt2", *inputs.values()), False)
    ours, theirs = dn.scorer(case.model(), inputs, count=3), dn.scorer(program, inputs, count=3)
    assert theirs.logits(inputs, dn.keys_of(3)).equal(ours.logits(inputs, dn.keys_of(3)))
    with pytest.raises(ConfigError, match=r"takes the inputs 'tokens', 'features', pool\.inputs gives 'x', 'features'"):
        program(x=inputs["tokens"], features=inputs["features"])
    with pytest.raises(ConfigError, match="gives one without a name"):
        program(inputs["tokens"])


def test_the_device_is_that_of_the_input(path: Path) -> None:
    program = load_program(path, False)
    assert program.to("meta")(rows(4).to("meta")).device.type == "meta"


def test_the_description_tells_programs_apart(path: Path) -> None:
    def another_rate(program: dict[str, Any]) -> None:
        text = json.dumps(program["graph_module"]["graph"]["nodes"]).replace('{"as_float": 0.4}', '{"as_float": 0.41}')
        program["graph_module"]["graph"]["nodes"] = json.loads(text)

    one, same, other = (TorchNetwork(load_program(p, False)) for p in (path, path, edited(path, another_rate)))
    assert one.description == same.description != other.description
    assert one.weights == same.weights == other.weights


# -------------------------------------------------------------------------------------------- trust


class Payload:
    """A pickle that makes a folder when it is read without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def pickled(tmp_path: Path, thing: Any) -> bytes:
    torch.save(thing, tmp_path / "payload")
    return (tmp_path / "payload").read_bytes()


def is_live(path: Path, mark: Path) -> bool:
    """Whether torch's own loader, and a call, run what the file hides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(ConfigError, RuntimeError):
            load_program(path, True)(rows(2))
    return mark.exists()


def test_example_inputs_are_never_unpickled(path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    bad = edited(path, members={"data/sample_inputs/model.pt": pickled(tmp_path, Payload(mark))})
    assert load_program(bad, False)(rows(2)).shape == (2, 3)
    assert not mark.exists()
    assert is_live(bad, mark)


@pytest.mark.parametrize("config", ["weights", "constants"])
def test_a_pickled_tensor_needs_trust(path: Path, tmp_path: Path, config: str) -> None:
    mark = tmp_path / "ran"
    member = f"data/{config}/model_{config}_config.json"
    with ZipFile(path) as file:
        entries = json.loads(file.read(f"net/{member}"))
    entry = next(iter(entries["config"].values()))
    entry["use_pickle"] = True
    payload = {f"data/{config}/{entry['path_name']}": pickled(tmp_path, Payload(mark))}
    bad = edited(path, members={member: json.dumps(entries).encode(), **payload})
    message = error_of(bad)
    assert f"holds a pickle (data/{config}/" in message
    assert "set model.trust: true" in message
    assert "poolscore export" in message
    assert not mark.exists()
    assert is_live(bad, mark)


def test_no_text_of_the_graph_is_evaluated(path: Path, tmp_path: Path) -> None:
    """torch's loader hands shapes to sympy, which hands them to eval: no pickle is needed to run code."""
    mark = tmp_path / "ran"
    code = f"__import__('os').mkdir({str(mark)!r})"

    def edit(program: dict[str, Any]) -> None:
        for value in program["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        program["guards_code"] = [code]

    bad = edited(path, edit)
    assert load_program(bad, False)(rows(2)).shape == (2, 3)
    assert not mark.exists()
    assert is_live(bad, mark)


def replace_operator(target: str) -> Edit:
    def edit(program: dict[str, Any]) -> None:
        node = program["graph_module"]["graph"]["nodes"][0]
        node["target"] = target

    return edit


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.no_such.default",
        "torch.ops.higher_order.cond",
        "torch.ops.profiler._record_function_enter.default",
        "_operator.methodcaller",
        "math.os",
        "#triton_kernel",
        "eval",
    ],
)
def test_only_operators_on_tensors_are_called(path: Path, target: str) -> None:
    message = error_of(edited(path, replace_operator(target)))
    assert f"calls {target}" in message
    assert "set model.trust: true" in message


def test_names_are_only_names(path: Path, tmp_path: Path) -> None:
    """No name of the file becomes code or replaces a method."""
    mark = tmp_path / "ran"
    code = f"x=__import__('os').mkdir({str(mark)!r})"

    def rename(old: str, new: str) -> Edit:
        def edit(program: dict[str, Any]) -> None:
            text = json.dumps(program).replace(json.dumps(old), json.dumps(new))
            program.clear()
            program.update(json.loads(text))

        return edit

    for old in ("input", "linear"):
        program = load_program(edited(path, rename(old, code)), False)
        assert program(rows(2)).shape == (2, 3)
    assert "has a tensor of the name" in error_of(edited(path, rename("a.weight", code)))
    assert "cannot be read: " in error_of(edited(path, rename("a.weight", "forward")))
    assert not mark.exists()


def test_a_graph_within_the_graph_needs_trust(tmp_path: Path) -> None:
    class Guarded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 3)

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            with torch.autocast("cpu", enabled=False):
                h = self.a(input)
            return functional.dropout(h, 0.3, True)

    path = save(Guarded(), tmp_path / "net.pt2", rows(3))
    assert "calls torch.ops.higher_order.wrap_with_autocast" in error_of(path)
    program = load_program(path, True)
    assert len(probe_model(program, {"": rows(3)}).layers) == 1


# --------------------------------------------------------------------------------- files that are wrong


def test_members_stay_inside(path: Path, tmp_path: Path) -> None:
    for name in ("../evil", "/etc/evil", "net/../../evil", "net\\..\\evil"):
        bad = tmp_path / "bad.pt2"
        bad.write_bytes(path.read_bytes())
        with ZipFile(bad, "a") as file:
            file.writestr(name, b"x")
        for trust in (False, True):
            assert "names a file outside of itself" in error_of(bad, trust)


def test_a_file_does_not_unpack_to_more_than_it_is(path: Path) -> None:
    with ZipFile(path, "a", ZIP_DEFLATED) as file:
        file.writestr("net/data/weights/weight_9", bytes(10 << 20))
    assert "unpacks to more than it is" in error_of(path)


def test_what_is_no_program(net: nn.Module, path: Path) -> None:
    assert "of format 9" in error_of(edited(path, lambda program: program["schema_version"].update(major=9)))
    assert "as one pickle" in error_of(without(path, "model_weights_config.json"))
    torch.save(net.state_dict(), path)
    assert "holds no exported program" in error_of(path)
    for content in (b"", b"hello"):
        path.write_bytes(content)
        assert "is not a .pt2 file" in error_of(path)
    path.unlink()
    assert "there is no file" in error_of(path)


def without(path: Path, ending: str) -> Path:
    new = path.with_name("less.pt2")
    with ZipFile(path) as old, ZipFile(new, "w") as file:
        for info in old.infolist():
            if not info.filename.endswith(ending):
                file.writestr(info.filename, old.read(info))
    return new


def test_damaged_files(path: Path) -> None:
    """Cut off or overwritten: an error in one line, or a program."""
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    messages: list[str] = []
    for i in range(60):
        damaged = bytearray(whole)
        if i % 3 == 0:
            damaged = damaged[: int(random.integers(0, len(damaged)))]
        else:
            for place in random.integers(0, len(damaged), size=10):
                damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        try:
            load_program(path, False)
        except ConfigError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(message.startswith("model.source: ") and "\n" not in message for message in messages)


def test_programs_that_cannot_be_scored(net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    save(net, path, rows(3), rows=3)
    for trust in (False, True):
        assert "for batches of 3 rows only" in error_of(path, trust)
        assert "`poolscore export`" in error_of(path, trust)
    save(Net().train(), path, rows(3))
    for trust in (False, True):
        assert "'norm' of the program has BatchNorm in training mode" in error_of(path, trust)

    class Several(nn.Module):
        def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:  # noqa: A002
            return input, input + 1

    save(Several(), path, rows(3))
    for trust in (False, True):
        assert "gives 2 outputs" in error_of(path, trust)

    class Random(nn.Module):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return input * torch.bernoulli(torch.full((6,), 0.5))

    save(Random(), path, rows(3))
    for trust in (False, True):
        assert "draws random numbers itself" in error_of(path, trust)

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            self.calls.add_(1)
            return input + self.calls

    save(Counts(), path, rows(3), decomposed=True)
    for trust in (False, True):
        assert "changes 'calls'" in error_of(path, trust)


@pytest.mark.parametrize("trust", [False, True])
def test_inputs_that_are_no_tensors(tmp_path: Path, trust: bool) -> None:
    """Constants are in the graph already; a number that may be any is refused, and so is a program without inputs."""

    class Takes(nn.Module):
        def forward(self, input: Tensor, mask: Tensor | None, scale: float, times: int) -> Tensor:  # noqa: A002
            return functional.dropout(input if mask is None else mask, 0.3, True) * scale * times

    path = tmp_path / "net.pt2"
    for times, dynamic in ((3, None), (3, Dim.DYNAMIC)):
        shapes = ({0: Dim("rows")}, None, None, dynamic)
        torch.export.save(export(Takes(), (rows(3), None, 2.0, times), dynamic_shapes=shapes), path)
        if dynamic is None:
            program = load_program(path, trust)
            assert program.inputs == ("input",)
            plain = dn.scorer(program, {"": rows(2 + 1)}).without_dropout({"": rows(2)})
            assert plain[:, 0].equal(rows(2) * 2.0 * 3)
        else:
            assert "takes a number as input" in error_of(path, trust)

    class Constant(nn.Module):
        def forward(self) -> Tensor:
            return torch.ones(3)

    torch.export.save(export(Constant(), ()), path)
    assert "has no input" in error_of(path, trust)


def test_decomposed_dropout_is_found(tmp_path: Path) -> None:
    """After run_decompositions, dropout is `native_dropout`, and attention is written out around it."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.4)

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            q = self.drop(input)[:, None, None]
            return functional.scaled_dot_product_attention(q, q, q, dropout_p=0.3)[:, 0, 0]

    found = load_program(save(Attends().train(), tmp_path / "net.pt2", rows(3), decomposed=True), False)
    assert "native_dropout" in found.extra_repr()
    ours, theirs = dn.scorer(Attends().eval(), {"": rows(3)}, count=3), dn.scorer(found, {"": rows(3)}, count=3)
    assert [(x.name, x.p, x.elements) for x in theirs.layers] == [(x.name, x.p, x.elements) for x in ours.layers]
    close = theirs.logits({"": rows(4)}, dn.keys_of(4)), ours.logits({"": rows(4)}, dn.keys_of(4))
    assert torch.allclose(*close, rtol=0, atol=1e-6)


@pytest.mark.parametrize("repeat", [None, "asked for"])
def test_a_cast_in_the_model_does_not_fix_the_precision(tmp_path: Path, repeat: str | None) -> None:
    """The exporter writes down which type it saw; under autocast it is another."""

    class Casts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.drop, self.b = nn.Linear(6, 8), nn.Dropout(0.4), nn.Linear(8, 3)

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return self.b(self.drop(self.a(input).double().sin().float()))

    model = Casts().eval()
    path = save(model, tmp_path / "net.pt2", rows(3))
    with ZipFile(path) as file:
        assert b"_assert_tensor_metadata" in file.read("net/models/model.json")
    exact = dn.scorer(model, {"": rows(3)}, count=3).logits({"": rows(3)}, dn.keys_of(3))
    for of in (model, load_program(path, trust=False)):
        scorer = dn.scorer(of, {"": rows(3)}, repeat=repeat, count=3, precision="bf16")
        assert scorer.repeated_because == repeat
        assert torch.allclose(scorer.logits({"": rows(3)}, dn.keys_of(3)), exact, rtol=0, atol=0.05)
