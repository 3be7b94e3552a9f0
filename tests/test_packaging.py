"""How the folders at the top of the repository become `poolscore.*`, and what they must never become."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A library called `kernels` exists. If our folder were seen as a top-level package of that name, it would be shadowed.
FIND_KERNELS = """
import importlib.util
spec = importlib.util.find_spec("kernels")
places = list(spec.submodule_search_locations or []) if spec else []
print([place for place in places if place.startswith({root!r})])
"""


def test_the_driver_never_sees_our_folder_as_kernels() -> None:
    poolscore = Path(sys.executable).with_name("poolscore")
    if not poolscore.exists():
        pytest.skip("poolscore is not installed in this environment")
    # What an installed console script sees as its path, started from the root of the repository.
    script = poolscore.read_text().splitlines()[0] + "\n" + FIND_KERNELS.format(root=str(ROOT))
    probe = poolscore.with_name("poolscore-path-probe")
    probe.write_text(script)
    probe.chmod(0o755)
    try:
        run = subprocess.run([str(probe)], cwd=ROOT, capture_output=True, text=True, check=True)
    finally:
        probe.unlink()
    assert run.stdout.strip() == "[]"


def test_ray_workers_never_see_our_folder_as_kernels(
    ray_session: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray puts the driver's working directory on its workers' path; our actors take it off again."""
    import ray

    from poolscore.engine.run.ray_actor import Actor

    class Look(Actor):
        def look(self, not_on_path: list[str]) -> tuple[list[str], bool]:
            import importlib.util

            self.leave_path(not_on_path)
            spec = importlib.util.find_spec("kernels")
            places = list(spec.submodule_search_locations or []) if spec else []
            return places, importlib.util.find_spec("poolscore.kernels.row_stats") is not None

    places, ours = ray.get(ray.remote(Look).remote().look.remote([str(ROOT)]))
    assert not [place for place in places if place.startswith(str(ROOT))]
    assert ours


def test_kernels_has_no_init() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()


@pytest.mark.parametrize("command", ["select", "report", "status"])
def test_reading_a_run_imports_neither_torch_nor_ray(command: str, finished_run: str) -> None:
    arguments = {"select": ["select", finished_run, "--name", "again", "--k", "3"]}.get(
        command, [command, finished_run]
    )
    code = (
        "import sys; from poolscore.jobs.cli import app\n"
        f"sys.argv = ['poolscore', *{arguments!r}]\n"
        "try:\n    app()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert not {'torch', 'ray', 'triton', 'onnxruntime'} & set(sys.modules), sorted(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_wheel_holds_what_runs(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            ".",
        ],
        cwd=ROOT,
        check=True,
    )
    import zipfile

    wheel = next(tmp_path.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    sources = [
        path.relative_to(ROOT).as_posix()
        for folder in ("engine", "jobs", "kernels")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "README.md"  # for who reads the code
    ]
    assert {f"poolscore/{source}" for source in sources} <= set(names)
    assert not [name for name in names if name.split("/")[0] in ("kernels", "engine", "jobs", "tests")]
