from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlsync.config.reward import RewardFunctionConfig
from rlsync.data.problem import Problem
from rlsync.errors import ConfigError
from rlsync.rewards.functions import load_function

PROBLEM = Problem(id="1", prompt="p", answer="a")


def _load(path: str) -> Callable[..., Any]:
    return load_function(RewardFunctionConfig(function=path))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize("path", ["mine_a.inner:reward", "mine_a.inner.reward"])
def test_from_the_current_directory(here: Path, path: str) -> None:
    (here / "mine_a").mkdir(exist_ok=True)
    (here / "mine_a" / "inner.py").write_text(
        "def reward(completion, problem): return float(completion == problem.answer)"
    )
    function = _load(path)
    assert function("a", PROBLEM) == 1.0
    assert function("b", PROBLEM) == 0.0
    for name in ("mine_a", "mine_a.inner"):
        sys.modules.pop(name, None)


def test_current_directory_hides_no_installed_module(here: Path) -> None:
    (here / "fractions.py").write_text("raise RuntimeError")
    assert _load("fractions:Fraction") is not None
    assert sys.path[-1] == str(here)


@pytest.mark.parametrize("path", ["", "name", ":name", "module:", "a b:c", "a..b", "a:b:c", "module:a.b"])
def test_malformed(path: str) -> None:
    with pytest.raises(ConfigError, match=r"reward\.function=.*malformed. Give package\.module:name"):
        _load(path)


def test_module_is_absent() -> None:
    with pytest.raises(ConfigError, match=r"absent_module.*ModuleNotFoundError: No module named"):
        _load("absent_module:f")


def test_module_fails(here: Path) -> None:
    (here / "mine_b.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match="mine_b failed: ZeroDivisionError: division by zero"):
        _load("mine_b:f")


def test_name_is_absent() -> None:
    with pytest.raises(ConfigError, match=r"math has no 'sqr'. Nearest: sqrt"):
        _load("math:sqr")


def test_a_wrapper_takes_what_it_says(here: Path) -> None:
    (here / "mine_w.py").write_text(
        "import functools\n"
        "def short(completion): return -1.0\n"
        "def fits(completion, problem): return -1.0\n"
        "@functools.wraps(short)\n"
        "def adapted(completion, problem): return short(completion)\n"
        "@functools.wraps(fits)\n"
        "def narrow(completion): return -1.0\n"
    )
    assert _load("mine_w:adapted")
    with pytest.raises(ConfigError, match="too many positional arguments"):
        _load("mine_w:narrow")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            "completion",
            r"too many positional arguments; it takes \(completion\)\. It must be f\(completion: str, problem",
        ),
        ("completion, problem, level", r"missing a required argument: 'level'"),
        ("*, completion, problem", r"too many positional arguments"),
        ("completion, problem, level=1", None),
        ("*texts", None),
    ],
)
def test_arguments_are_those_of_a_reward(here: Path, parameters: str, message: str | None) -> None:
    (here / "mine_c.py").write_text(f"def reward({parameters}): return 1.0")
    sys.modules.pop("mine_c", None)
    if message is None:
        assert _load("mine_c.py:reward")("a", PROBLEM) == 1.0
    else:
        with pytest.raises(ConfigError, match=rf"reward\.function='mine_c\.py:reward': {message}"):
            _load("mine_c.py:reward")


def test_not_callable() -> None:
    with pytest.raises(ConfigError, match="is float, not callable"):
        _load("math:pi")
