"""pre-commit runs what `make lint` runs, with the versions that are locked."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
HOOKS = [
    hook for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"] for hook in repo["hooks"]
]


def test_the_hooks_are_the_commands_of_make_lint():
    rule = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    commands = [line.strip().removeprefix("$(BIN)/").removesuffix(" .") for line in rule.splitlines()[1:]]
    assert [hook["entry"].removesuffix(" --no-warn-unused-ignores") for hook in HOOKS] == commands


def test_the_hooks_have_the_locked_versions():
    locked = (ROOT / "requirements/cpu-test.txt").read_text().splitlines()
    pinned = [pin for hook in HOOKS for pin in hook["additional_dependencies"]]
    assert len(pinned) == len(HOOKS)
    assert [pin for pin in pinned if pin not in locked] == []
