"""The lock files hold what pyproject.toml asks for, and every dependency of what they hold."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = {"cpu-test.txt": ("cpu", "test"), "gpu.txt": ("gpu",), "docs.txt": ("docs",)}
WITHOUT_THE_PROJECT = {"docs.txt"}
NOT_INSTALLED = {"torchvision", "torchaudio", "torchcodec"}
"""vLLM's CPU wheel asks for these; requirements/lock.py says why the CPU lock leaves them out."""


def _applies(requirement, python="3.11", extra=""):
    environment = {"python_version": python, "python_full_version": f"{python}.9", "extra": extra}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def _pins(lock, python="3.11"):
    """The locked version of each package on a machine like this one with this Python."""
    lines = [line for line in (ROOT / "requirements" / lock).read_text().splitlines() if not line.startswith("#")]
    pins = [pin for pin in map(Requirement, lines) if _applies(pin, python)]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert len(versions) == len(pins), "a package is pinned twice"
    return versions


def _unsatisfied(requirements, pins):
    """Those that the lock lacks or holds in another version; a local version such as +cpu is not compared."""
    bad = []
    for requirement in requirements:
        pinned = pins.get(canonicalize_name(requirement.name))
        bounds = str(requirement.specifier).partition("+")[0]
        if pinned is None or not Requirement(f"x{bounds}").specifier.contains(pinned, prereleases=True):
            bad.append(f"{requirement} but {pinned}")
    return bad


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_satisfies_pyproject(lock, python):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    own = [] if lock in WITHOUT_THE_PROJECT else project["dependencies"]
    asked = [Requirement(text) for text in [*own, *(text for extra in EXTRAS[lock] for text in optional[extra])]]
    assert len(asked) > (1 if lock in WITHOUT_THE_PROJECT else 15)
    assert _unsatisfied(asked, _pins(lock, python)) == []


def test_a_lock_with_an_older_release_does_not():
    """The control."""
    pins = _pins("gpu.txt") | {"torch": "2.10.0"}
    assert _unsatisfied([Requirement("torch>=2.11"), Requirement("absent")], pins) == [
        "torch>=2.11 but 2.10.0",
        "absent but None",
    ]


def test_the_cpu_lock_holds_the_dependencies_of_its_packages():
    """Read from the packages that are installed here in the locked version."""
    pins = _pins("cpu-test.txt")
    checked = 0
    for name, version in pins.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if installed.version.partition("+")[0] != version:
            continue
        needed = [r for r in map(Requirement, installed.requires or ()) if _applies(r)]
        assert _unsatisfied([r for r in needed if canonicalize_name(r.name) not in NOT_INSTALLED], pins) == [], name
        checked += 1
    if checked < len(pins) // 2:
        pytest.skip(f"only {checked} of the {len(pins)} locked packages are installed here")


def test_the_site_has_an_environment_of_its_own():
    """`make test` installs none of its packages, and its environment none of rlsync's."""
    own, site = _pins("cpu-test.txt"), _pins("docs.txt")
    assert not {name for name in site if name.startswith("mkdocs")} & set(own)
    assert not {"torch", "vllm", "ray"} & set(site)


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_names_no_index(lock):
    text = (ROOT / "requirements" / lock).read_text()
    assert "://" not in text
    assert "--" not in text.partition("\n")[2]
