"""Wrong input: exit code 2, one clear message, no traceback, nothing started."""

import json
import os
import subprocess
import sys

import pytest
import ray
from transformers import GPT2Config

from rlsync.cli import main


def _rlsync(*arguments: str, cwd) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "rlsync.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ)


@pytest.fixture
def problems(tmp_path):
    rows = [{"question": f"{i}+1", "answer": str(i + 1)} for i in range(200)]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


CASES = [
    (["trainer.stpes=3"], ["trainer.stpes", "trainer.steps"]),
    (["rollout.tp=3"], ["rollout.tp=3", "gather"]),
    (["kernels.tree_leaves=16", "model.tiny.intermediate_size=200"], ["down_proj", "200", "16"]),
    (["algorithm.group_size=1"], ["group_size=1"]),
    (["model=huggingface", "model.path=./missing"], ["./missing", "config.json"]),
    (["data=file", "data.path=problems.jsonl", "data.max_prompt_tokens=32"], ["prompt", "question"]),
    (["reward=function", "reward.function=no_such_module:f"], ["no_such_module"]),
    (["model=huggingface", "model.path=./gpt2"], ["GPT2LMHeadModel", "Qwen3ForCausalLM"]),
]


@pytest.mark.parametrize(("overrides", "words"), CASES, ids=lambda v: v[-1] if isinstance(v, list) else None)
def test_mistakes(problems, overrides, words, monkeypatch, capsys):
    GPT2Config(architectures=["GPT2LMHeadModel"]).save_pretrained(problems / "gpt2")
    monkeypatch.chdir(problems)
    code = main(["train", "recipe=grpo_arithmetic_tiny_cpu", f"run.dir={problems}/run", *overrides])
    shown = capsys.readouterr().err
    assert code == 2, shown
    for word in words:
        assert word in shown
    assert shown.startswith("rlsync: ")
    assert "Traceback" not in shown
    assert not (problems / "run").exists()
    assert not ray.is_initialized()


def test_a_mistake_ends_the_command(tmp_path):
    done = _rlsync("train", "recipe=no_such_recipe", cwd=tmp_path)
    assert done.returncode == 2
    assert "no_such_recipe" in done.stderr
    assert "grpo_arithmetic_tiny_cpu" in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_and_help_work_outside_the_clone(tmp_path):
    dry = _rlsync("train", "--dry-run", "recipe=grpo_arithmetic_tiny_cpu", "trainer.steps=7", cwd=tmp_path)
    assert dry.returncode == 0
    assert "steps: 7" in dry.stdout
    assert "2 FSDP ranks" in dry.stdout
    shown = _rlsync("train", "--help", cwd=tmp_path)
    assert "grpo_arithmetic_tiny_cpu" in shown.stdout
    assert "kernels: invariant, native" in shown.stdout
    assert os.listdir(tmp_path) == []


def test_a_reward_that_fails_on_some_samples_is_reported(launcher, reference):
    (launcher.root / "my_reward.py").write_text(
        "def reward(completion, problem):\n"
        "    if problem.answer.endswith('3'):\n"
        "        raise ValueError('no threes')\n"
        "    return float(completion == problem.answer)\n"
    )
    run = launcher.run(
        "reward=function", "reward.function=my_reward:reward", "trainer.steps=1", "seed=4", "rollout.tp=1"
    )
    assert run.code == 0, run.out + run.err
    assert run.metrics[0]["reward/errors"] > 0
    rows = [json.loads(line) for line in (run.folder / "rollouts.jsonl").read_text().splitlines()]
    failed = [row for row in rows if row["reward_error"]]
    assert all("no threes" in row["reward_error"] and row["reward"] is None for row in failed)
    assert len(failed) == run.metrics[0]["reward/errors"]
    assert all(row["reward"] is not None for row in rows if not row["reward_error"])  # the control
