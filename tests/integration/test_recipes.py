"""Two of the CPU recipes a day, two real steps each; in a week or so every one has its turn."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

RECIPES = sorted(path.name for path in Path(__file__).parents[2].glob("recipes/*_cpu"))
TODAY = 2 * datetime.now(UTC).date().toordinal()


@pytest.mark.parametrize("name", [RECIPES[(TODAY + i) % len(RECIPES)] for i in range(2)])
def test_a_recipe_trains_exactly(launcher, name):
    run = launcher.run(
        f"recipe={name}", "trainer.steps=2", "trainer.warmup_steps=0", "algorithm.prompts_per_step=8",
        "eval.problems=16", "model.tiny.warm_start_steps=200", "telemetry=files_only", small=False,
    )  # fmt: skip
    assert run.code == 0, run.out + run.err
    assert len(run.metrics) == 2
    for row in run.metrics:
        assert row["parity/tokens_compared"] > 0
        assert row["parity/tokens_different"] == row["parity/draws_different"] == 0
        assert row["parity/weights_digest_equal"] == 1
