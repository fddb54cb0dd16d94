"""An installed wheel, not an editable clone, has all that a command needs."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package installed from its wheel; other packages are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    build = [*pip, "wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("rlsync-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "lib"), str(wheel)], check=True, timeout=300)
    return folder / "lib"


def _run(installed, words, cwd):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_a_recipe_composes_outside_the_clone(installed, tmp_path):
    script = [sys.executable, str(installed / "bin/rlsync")]
    done = _run(installed, [*script, "train", "recipe=grpo_arithmetic_tiny_cpu", "--dry-run", "seed=3"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "seed: 3" in done.stdout
    assert "2 FSDP ranks" in done.stdout
    assert os.listdir(tmp_path) == []


def test_it_is_the_wheel_that_runs(installed, tmp_path):
    """The control: not the clone, and with every file of the package, the configurations and the recipes."""
    code = "import rlsync.config.paths as p; print(p.shipped('recipes'))"
    done = _run(installed, [sys.executable, "-c", code], tmp_path)
    assert done.stdout.strip() == str(installed / "rlsync/recipes"), done.stderr
    package = [path.relative_to(ROOT / "rlsync") for path in ROOT.glob("rlsync/**/*.py")] + [Path("py.typed")]
    package += [path.relative_to(ROOT / "rlsync") for path in ROOT.glob("rlsync/report/static/*")]
    data = [path.relative_to(ROOT) for name in ("configs", "recipes") for path in ROOT.glob(f"{name}/**/*.*")]
    assert [path for path in [*package, *data] if not (installed / "rlsync" / path).is_file()] == []
