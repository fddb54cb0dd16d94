"""Write docs/recipes.md from the READMEs, the configurations and the measured values in recipes/.

Call it as `python docs/generate/recipes_page.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rlsync.config.compose import compose_train
from rlsync.config.paths import recipe_names, shipped

PAGE = Path(__file__).resolve().parents[1] / "recipes.md"
_INTRODUCTION = """\
# Recipes

<!-- Written by `make reference` from the folders in recipes/. Do not edit this page: edit the READMEs there. -->

A recipe is a folder in `recipes/` with a configuration (`recipe.yaml`), a README and measured values (`expected.json`).
`rlsync train recipe=NAME` runs it, and `rlsync train recipe=NAME key=value` changes single values. To make a recipe of
your own, see [CONTRIBUTING.md](../CONTRIBUTING.md#adding-something).

The recipes for CPUs and `grpo_arithmetic_small_1gpu` download nothing. The table has the values of seed 0: held-out
accuracy before and after training, the same after training with shuffled rewards (the control, whose rewards carry no
information), and how many sampled tokens differed between vLLM and the trainer. On another processor gradients round
differently, so accuracies there are close to these but not equal.

| recipe | advantage and loss | steps | accuracy before | after | after, shuffled | tokens that differ | device |
|---|---|--:|--:|--:|--:|--:|---|
"""


def page() -> str:
    """Return the text of the page."""
    names = recipe_names()
    rows = [_row(name) for name in names]
    return "\n".join([_INTRODUCTION + "\n".join(rows), *(_readme(name) for name in names), ""])


def _row(name: str) -> str:
    config = compose_train([f"recipe={name}"])
    expected: dict[str, Any] = json.loads((shipped("recipes") / name / "expected.json").read_text(encoding="utf-8"))
    cells = [f"[{name}](#{name})", f"{config.algorithm.advantage}, {config.algorithm.loss}", str(config.trainer.steps)]
    if expected["status"] != "measured":
        return f"| {' | '.join([*cells, 'not measured', '', '', '', ''])} |"
    runs = {run["reward"]: run for run in reversed(expected["runs"]) if run["seed"] == 0}
    task, shuffled = runs["task"], runs.get("shuffled")
    cells += [f"{task['accuracy_before']:.3f}", f"{task['accuracy_after']:.3f}"]
    cells += [f"{shuffled['accuracy_after']:.3f}" if shuffled else ""]
    cells += [f"{task['tokens_different']} of {task['tokens_compared']:,}", expected["device"]]
    return f"| {' | '.join(cells)} |"


def _readme(name: str) -> str:
    """Return a recipe's README as a section of the page."""
    text = (shipped("recipes") / name / "README.md").read_text(encoding="utf-8")
    return "\n" + re.sub(r"^#", "##", text, flags=re.MULTILINE).rstrip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
