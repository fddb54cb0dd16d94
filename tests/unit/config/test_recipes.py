"""Every recipe is documented, has only values that differ, and claims only what was measured."""

import json

import pytest
import yaml

from rlsync.config.compose import compose_train
from rlsync.config.paths import recipe_names, shipped

RUN_KEYS = {"seed", "reward", "accuracy_before", "accuracy_after"}


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_complete(name):
    folder = shipped("recipes") / name
    assert f"# {name}" in (folder / "README.md").read_text()
    assert f"rlsync train recipe={name}" in (folder / "README.md").read_text()
    expected = json.loads((folder / "expected.json").read_text())
    assert expected["status"] in ("measured", "unmeasured")
    if expected["status"] == "unmeasured":
        return
    assert expected["device"]
    assert expected["date"]
    assert all(run.keys() >= RUN_KEYS for run in expected["runs"])
    assert all(run.get("tokens_different", 0) == 0 for run in expected["runs"])
    gains = {"trained": [], "control": []}
    for run in expected["runs"]:
        kind = "control" if run["reward"] == "shuffled" else "trained"
        gains[kind].append(run["accuracy_after"] - run["accuracy_before"])
    if expected.get("bound") is not None:
        assert min(gains["trained"]) > expected["bound"] > max(gains["control"])


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_holds_only_what_differs(name):
    """A value that the configuration without it would have anyway is left out."""
    path = shipped("recipes") / name / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    composed = compose_train([f"recipe={name}"])
    for section in recipe.keys() - {"defaults"}:
        assert hasattr(composed, section)
        assert recipe[section], f"{section} is empty"
