"""Training with a calculator: with real engines, several turns and the prefix cache, no bit differs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CALCULATOR = (
    "recipe=grpo_calculator_tiny_cpu",
    "algorithm.prompts_per_step=8",
    "algorithm.group_size=4",
    "eval.problems=16",
    "trainer.steps=2",
    "trainer.save_every=1",
    "telemetry=files_only",
    "model.tiny.warm_start_steps=40",  # enough to write calls; the answers need not be right
    "model.tiny.warm_start_style_share=0.9",
    "trainer.lr=1e-3",
    "trainer.adam_eps=1e-8",
    "trainer.warmup_steps=0",
    "rollout.block_size=16",  # the first turn fills a block, which the prefix cache can reuse
    "reward=regex",
    r"reward.pattern='[1357]$'",  # whether right or not, some answers get the reward and some do not
    "rollout.tp=1",
)


@pytest.fixture(scope="module")
def conversations(launcher):
    run = launcher.run(*CALCULATOR, small=False)
    assert run.code == 0, run.out + run.err
    return run


def _rollouts(run):
    return [json.loads(line) for line in (run.folder / "rollouts.jsonl").read_text().splitlines()]


def test_every_token_of_every_turn_is_the_trainers(conversations):
    assert len(conversations.metrics) == 2
    rows = _rollouts(conversations)
    for number, row in enumerate(conversations.metrics, 1):
        assert row["rollout/turns_mean"] > 1
        assert row["rollout/tool_calls_mean"] > 0
        assert row["environment/errors"] == 0
        assert row["parity/tokens_compared"] == row["parity/draws_compared"] == row["parity/tokens_sampled"]
        for key in ("tokens_different", "max_ulp", "draws_different", "nonfinite", "tokens_left_out_stale"):
            assert row[f"parity/{key}"] == 0
        assert row["train/grad_norm"] > 0
        assert row["train/ratio_min"] == row["train/ratio_max"] == 1.0
        # The tokens of the model were compared, and no token of the environment.
        own = sum(bits is not None for r in rows if r["step"] == number for bits in r["logprob_bits"])
        everything = sum(len(r["response_tokens"]) for r in rows if r["step"] == number)
        assert row["parity/tokens_compared"] == own < everything


def test_conversations_are_written_whole(conversations):
    talks = [row for row in _rollouts(conversations) if len(row["turns"]) > 1]
    assert talks
    for row in talks:
        call, said, answer = row["turns"]
        assert call.endswith(">>")
        assert row["response"] == answer
        others = [
            token for token, bits in zip(row["response_tokens"], row["logprob_bits"], strict=True) if bits is None
        ]
        assert len(others) == len(said) + 1  # and the = of environment.template


@pytest.mark.parametrize(("step", "code"), [(2, 0), (1, 1)])
def test_log_probs_of_all_turns_are_recomputed_from_the_files(conversations, tmp_path, step, code):
    """Control: the rollouts of step 2 do not agree with other weights than step 1's."""
    folder = conversations.folder
    if step == 1:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints/step_1").symlink_to(folder / "checkpoints/step_2")
        (tmp_path / "rollouts.jsonl").symlink_to(folder / "rollouts.jsonl")
        folder = tmp_path
    script = [sys.executable, str(HERE / "recompute_logprobs.py"), str(folder), "2"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
