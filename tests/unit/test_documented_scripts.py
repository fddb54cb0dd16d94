"""Commands of the documentation besides rlsync's own: targets of make exist, and scripts with the options shown."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("recipes/*/README.md")]
)
SHELL = {"rlsync", "make", "git", "source", "tail"}
"""Programs that code blocks of the quick start may call; the first two are tested, of git the address."""


def _blocks(text):
    """Code blocks that name no language, as lists of lines, with continued lines joined."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text.replace("\\\n", " "), re.DOTALL | re.MULTILINE)
    return [block.splitlines() for language, block in found if not language]


def _code(page):
    """Lines of code and spans of `code` of a page."""
    text = page.read_text().replace("\\\n", " ")
    indented = re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", text)
    return [line.strip() for block in _blocks(text) for line in block] + indented + spans


LINES = sorted({line for page in PAGES for line in _code(page)})
MAKE = sorted({match[1] for line in LINES if (match := re.match(r"make ([a-z][a-z-]*)", line))})
SCRIPTS = [line for line in LINES if re.match(r"(python )?(benchmarks|docs|requirements)/[\w/]+\.py", line)]
TESTS = sorted({word for line in LINES if line.startswith("pytest ") for word in line.split()[1:]})


def _wrong(line):
    """What a command with a script names that does not exist: its file or its options."""
    words = shlex.split(line.removeprefix("python "), comments=True)
    script = ROOT / words[0]
    if not script.is_file():
        return [words[0]]
    text = script.read_text() + "".join(path.read_text() for path in script.parent.glob("*.py"))
    options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    return [option for option in options if f'"{option}"' not in text]


@pytest.mark.parametrize("target", MAKE)
def test_a_target_of_make_exists(target):
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", SCRIPTS)
def test_a_script_exists_and_has_the_options(line):
    assert _wrong(line) == []


@pytest.mark.parametrize("path", TESTS)
def test_tests_that_are_named_exist(path):
    assert (ROOT / path).exists()


def test_the_quick_start_calls_no_other_programs():
    text = (ROOT / "docs/quick_start.md").read_text()
    commands = [line for block in _blocks(text) if "tokens differ" not in "".join(block) for line in block]
    assert len(commands) > 15
    assert {line.split()[0] for line in commands} <= SHELL
    url = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert f"git clone {url} &&" in text


def test_control_what_is_looked_for_is_found():
    assert {"train", "test", "docs", "docs-serve", "reference", "lock"} <= set(MAKE)
    assert len(SCRIPTS) > 5
    assert TESTS
    assert _wrong("python benchmarks/gone.py") == ["benchmarks/gone.py"]
    assert _wrong("benchmarks/recipe.py --gone") == ["--gone"]
    assert subprocess.run(["make", "--dry-run", "gone"], cwd=ROOT, capture_output=True, check=False).returncode != 0
