"""Compiles the Triton kernels for sm_80 and sm_90 without a GPU and looks at the machine code. A process of its own:

    python tests/kernels/compile_gate.py          the worst configurations of every kind (what `make test` runs)
    python tests/kernels/compile_gate.py --all    many more

For each configuration: no spills, registers within the budget, 16-byte loads where the strides allow them, and, where
the notes give a budget, the instructions per logit (15.6 on an H200: more, and issuing them takes longer than reading
bfloat16 from memory).
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from poolscore.kernels.dropout_mask_triton_kernel import dropout_constants, dropout_rows
from poolscore.kernels.row_stats_triton_one_pass import softmax_one_pass
from poolscore.kernels.row_stats_triton_plan import Plan, Strides, bernoulli_plan, gaussian_plan, softmax_plan

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
ITEMSIZE = {"fp32": 4, "bf16": 2, "fp16": 2, "i1": 1}
DTYPES = ("fp32", "bf16", "fp16")
BALD = ("bald",)
ALL = ("entropy", "expected_entropy", "bald", "variation_ratio", "mean_std", "least_confidence", "margin")
POINTERS = {"prediction_ptr": "*i64", "finite_ptr": "*i1", "key_ptr": "*i64"} | dict.fromkeys(
    ("votes_ptr", "slice_vote_ptr", "vote_ptr", "index_ptr", "counter_ptr"), "*i32"
)
SMALL = ("N", "lag", "passes", "first", "step", "layer", "threshold")
INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.a-z]+)(.*?);")


@dataclass(frozen=True)
class Case:
    """A plan of the dispatcher for logits of a dtype, and what its machine code must keep to."""

    name: str
    dtype: str
    plan: Plan
    registers: int = 128
    per_logit: float = 0.0  # instructions allowed, 0: any


def softmax(
    dtype: str,
    T: int,
    C: int,
    want: tuple[str, ...] = ALL,
    layout: str = "NTC",
    pad: bool = False,
    accurate: bool = False,
    **limits: float,
) -> Case:
    """A case of the softmax; pad: rows and passes start at 16 bytes; accurate: with an accurate BALD."""
    size = ITEMSIZE[dtype]
    row = -(-C * size // 16) * 16 // size if pad else C
    n, t = (row, 4096 * row) if layout == "TNC" else (T * row, row)
    c = 3 if layout == "strided" else 1
    scores = "all" if want == ALL else "+".join(want) or "none"
    name = f"{dtype} T{T} C{C} {layout}{' padded' if pad else ''} {'accurate ' if accurate else ''}{scores}"
    plan = softmax_plan(T, C, Strides(0, n * c, t * c, c, size), want, accurate)
    return Case(name, dtype, plan, **limits)  # type: ignore[arg-type]


def masks(E: int, dtype: str = "", shared: bool = True) -> Case:
    """A case of the dropout kernel: features of a dtype, or the masks alone."""
    constants = dropout_constants(E, ITEMSIZE.get(dtype, 1), E) | {"SHARED": shared, "MASK_ONLY": not dtype}
    name = f"{f'{dtype} features' if dtype else 'masks'} E{E} {'shared' if shared else 'independent'}"
    return Case(name, dtype or "i1", Plan(dropout_rows, constants))


def compile_kernel(plan: Plan, dtype: str, arch: int) -> tuple[str, str]:
    """Resource usage and disassembly of a plan's machine code."""
    names = plan.kernel.arg_names
    constants = plan.constants | ({"stride_c": 1} if plan.constants.get("UNIT") else {})
    signature = {}
    for name in names:
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = POINTERS.get(name, "*fp32")
        else:
            signature[name] = "i32" if name in SMALL else "i64"
    signature |= {name: f"*{dtype}" for name in ("x_ptr", "out_ptr") if name in names}
    signature |= {name: "fp32" for name in ("scale",) if name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name.endswith("_ptr")}
    source = ASTSource(fn=plan.kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": plan.num_warps, "num_stages": 1, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        return tuple(_cuobjdump(flag, cubin.name) for flag in ("--dump-resource-usage", "-sass"))  # type: ignore[return-value]


def _cuobjdump(flag: str, path: str) -> str:
    environment = os.environ | {"PATH": f"{TOOLS}:{os.environ['PATH']}"}  # it looks for nvdisasm there
    command = [str(TOOLS / "cuobjdump"), flag, path]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def look(everything: bool, number: int, arch: int) -> tuple[bool, str]:
    """Whether a case passes, and a line about it. Cases go by number: kernels cannot be sent to a process."""
    case = list(many() if everything else few())[number]
    usage, listing = compile_kernel(case.plan, case.dtype, arch)
    found = dict(re.findall(r"(REG|SHARED):(\d+)", usage))
    registers, shared = int(found["REG"]), int(found["SHARED"])
    code = [(int(m[1], 16), m[2], m[3]) for line in listing.splitlines() if (m := INSTRUCTION.match(line))]
    kinds = Counter(name for _, name, _ in code)
    memory = "STG" if case.plan.kernel is dropout_rows else "LDG"
    wide = sum(n for name, n in kinds.items() if name.startswith(memory) and name.endswith("128"))
    local = sum(n for name, n in kinds.items() if name.startswith(("LDL", "STL")))
    per_logit = instructions_per_logit(case.plan, code)
    vector_bytes = case.plan.constants.get("V", 1) * ITEMSIZE[case.dtype]
    checks = (
        (local, f"{local} accesses to spilled registers"),
        (registers > case.registers, f"more than {case.registers} registers"),
        (vector_bytes == 16 and not wide, f"no {memory} of 16 bytes"),
        (case.per_logit and per_logit > case.per_logit, f"more than {case.per_logit} instructions per logit"),
    )
    failures = "".join(f"; {text}" for failed, text in checks if failed)
    line = (
        f"sm_{arch} {case.name}: {registers} registers, {shared} bytes shared, "
        f"{memory} of {vector_bytes} bytes ({wide} of 16)"
        + (f", {per_logit:.1f} instructions per logit" if per_logit else "")
    )
    return not failures, line + failures


def instructions_per_logit(plan: Plan, code: list[tuple[int, str, str]]) -> float:
    """Of the one-pass kernel: what one thread executes, over the logits that it handles."""
    if plan.kernel is not softmax_one_pass:
        return 0.0
    last = max(i for i, (_, name, _) in enumerate(code) if name.startswith("EXIT"))
    loops = [
        (int(target[1], 16), address)
        for address, name, rest in code[:last]
        if name == "BRA" and (target := re.search(r"0x([0-9a-f]+)", rest)) and int(target[1], 16) < address
    ]
    c = plan.constants
    sweeps = sorted(loops, key=lambda loop: loop[0] - loop[1])[: 1 + c["ACCURATE_BALD"]]
    inside = sum(start <= address <= end for start, end in sweeps for address, _, _ in code[:last])
    executed = inside * (c["T"] // c["U"]) + last - inside
    return executed / (plan.rows * c["T"] * c["C"] / (32 * plan.num_warps))


def few() -> Iterator[Case]:
    """The worst of every kind (all scores, the most classes per thread), and what the notes give a budget for."""
    yield softmax("bf16", 20, 10, BALD, per_logit=15.6)
    yield softmax("bf16", 20, 1000, BALD, registers=160, per_logit=15.6)
    yield softmax("fp32", 20, 1000, BALD, registers=160, per_logit=31)
    yield softmax("bf16", 20, 8192, BALD, registers=160, per_logit=15.6)
    yield softmax("bf16", 20, 21841, BALD, pad=True)
    yield softmax("fp32", 16, 128256, BALD)
    yield softmax("bf16", 4, 16)
    yield softmax("fp32", 20, 10, layout="TNC")
    yield softmax("fp32", 1, 1)
    yield softmax("fp16", 32, 32)
    yield softmax("fp32", 1000, 512)
    yield softmax("bf16", 1000, 1024, registers=200)
    yield softmax("fp32", 20, 1001, registers=200)
    yield softmax("bf16", 1000, 8192, registers=200)
    yield softmax("bf16", 1000, 262144)
    yield softmax("fp32", 20, 8193, layout="strided", registers=160)
    yield Case("binary fp32 T20", "fp32", bernoulli_plan(20, 1, True, False))
    yield Case("multilabel bf16 T20 L300 max", "bf16", bernoulli_plan(20, 300, False, True))
    yield Case("regression fp32 T20 D3 with noise", "fp32", gaussian_plan(20, 3, True, True))
    yield masks(1000)
    yield masks(2048, "bf16")
    yield from accurate()


def accurate() -> Iterator[Case]:
    """An accurate BALD: 62 instructions per logit are issued in the time in which two float32 are read."""
    yield softmax("fp32", 20, 10, BALD, accurate=True, per_logit=62)
    yield softmax("bf16", 20, 1000, BALD, accurate=True, per_logit=62)
    yield softmax("bf16", 4, 16, accurate=True, registers=160)
    yield softmax("bf16", 1000, 8192, accurate=True)
    yield softmax("fp32", 20, 128256, accurate=True)
    yield Case("multilabel bf16 T20 L300 accurate", "bf16", bernoulli_plan(20, 300, False, True, True))


def many() -> Iterator[Case]:
    """Every kind of width, dtype and layout, with the most classes a thread and either way of counting votes."""
    classes = (1, 3, 8, 10, 15, 16, 17, 32, 33, 64, 100, 128, 257, 512, 513, 1000, 1024, 2048, 5000, 8192)
    for C in (*classes, 8193, 21841, 128256, 262144):
        registers = 200 if C > 512 else 136
        for dtype, want in product(DTYPES, ((), BALD, ALL)):
            yield softmax(dtype, 20, C, want, registers=registers)
        yield softmax("bf16", 7, C, layout="TNC", registers=registers)
        yield softmax("bf16", 1000, C, pad=True, registers=registers)
        yield softmax("fp32", 1, C, layout="strided", registers=registers)
    for dtype, width in product(DTYPES, (1, 2, 5, 128, 1000)):
        yield Case(f"multilabel {dtype} L{width}", dtype, bernoulli_plan(1000, width, False, False))
        yield Case(f"regression {dtype} D{width}", dtype, gaussian_plan(1000, width, False, False))
        yield masks(width * 8, dtype, shared=False)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--all", action="store_true")
    arguments.add_argument("--arch", type=int, action="append", choices=(80, 90))
    given = arguments.parse_args()
    assert os.environ.get("TRITON_INTERPRET", "0") == "0", "the interpreter does not compile"
    print(f"triton {triton.__version__}")
    cases = sum(1 for _ in (many() if given.all else few()))
    jobs = [(given.all, number, arch) for number in range(cases) for arch in given.arch or (80, 90)]
    with ProcessPoolExecutor(max_workers=2) as pool:
        results = []
        for passed, line in pool.map(look, *zip(*jobs, strict=True)):
            results.append(passed)
            print(f"{'ok  ' if passed else 'FAIL'} {line}", flush=True)
    print(f"{sum(results)} of {len(results)} passed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
