"""The wheels that the GPU machine lacks, in a folder of at most 64 MiB, for `make gpu WHEELS=…`.

    python benchmarks/gpu_wheels.py .whl

Versions are those of constraints.txt, for Python 3.12 on x86-64. Ray's wheel is 79 MB, of which 32 are for Java: they
are taken out of it.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What poolscore and Ray need, less what the machine's image holds (its pip list, 2026-11-17).
MISSING = (
    "ray", "pydantic", "pydantic_core", "annotated-types", "typing-inspection", "simplejpeg", "defusedxml",
    "jsonschema", "jsonschema-specifications", "referencing", "rpds-py",
)  # fmt: skip
PLATFORMS = ("2_28", "2_27", "2_17")
JAVA = "ray/jars/"
MOST_BYTES = 56 << 20  # of the 64 MiB that travel; the working tree takes some 6


def pinned() -> list[str]:
    """NAME==VERSION of what is missing."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    versions = dict(line.split("==") for line in lines if "==" in line)
    return [f"{name}=={versions[name]}" for name in MISSING]


def download(folder: Path) -> None:
    """Wheels of PyPI, without what they need."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", "3.12", "--implementation", "cp", "--dest", str(folder)]
    command += [word for name in PLATFORMS for word in ("--platform", f"manylinux_{name}_x86_64")]
    command += ["--platform", "manylinux2014_x86_64", "--platform", "manylinux1_x86_64"]
    subprocess.run([*command, *pinned()], check=True)


def without(wheel: Path, prefix: str) -> None:
    """Take the files that begin so out of a wheel, and out of its list of files."""
    smaller = wheel.with_suffix(".new")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            content = source.read(info)
            if info.filename.startswith(prefix):
                continue
            if info.filename.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                content = "".join(line for line in lines if not line.startswith(prefix)).encode()
            target.writestr(info, content)
    smaller.replace(wheel)


def main() -> int:
    """Fill the folder; say what it weighs."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    download(folder)
    for wheel in folder.glob("ray-*.whl"):
        without(wheel, JAVA)
    size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    print(f"{folder}: {size / 2**20:.1f} MiB")
    return int(size > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
