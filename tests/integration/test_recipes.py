"""Each day another CPU recipe that no other test runs is trained for two real steps; all are run within ten days."""

from datetime import UTC, datetime
from pathlib import Path

RUN_ELSEWHERE = {"grpo_arithmetic_tiny_cpu", "ppo_arithmetic_tiny_cpu", "grpo_calculator_tiny_cpu"}
RECIPES = sorted({path.name for path in Path(__file__).parents[2].glob("recipes/*_cpu")} - RUN_ELSEWHERE)


def test_the_recipe_of_the_day_trains_exactly(launcher):
    name = RECIPES[datetime.now(UTC).date().toordinal() % len(RECIPES)]
    run = launcher.run(
        f"recipe={name}", "trainer.steps=2", "trainer.warmup_steps=0", "algorithm.prompts_per_step=8",
        "eval.problems=16", "model.tiny.warm_start_steps=200", "telemetry=files_only", "rollout.tp=1",
        small=False,
    )  # fmt: skip
    assert run.code == 0, name + run.out + run.err
    assert len(run.metrics) == 2
    for row in run.metrics:
        assert row["parity/tokens_compared"] > 0
        assert row["parity/tokens_different"] == row["parity/draws_different"] == 0
        assert row["parity/weights_digest_equal"] == 1
