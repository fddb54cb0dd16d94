"""Lines of an earlier part of a run that its folder keeps."""

import json

import torch

from rlsync.data.problem import Problem
from rlsync.samples import Episode, FinishReason, Rollout, Sample, Score
from rlsync.telemetry.run_folder import RunFolder, ended, results


def test_a_longer_run_ends_anew(tmp_path):
    first = RunFolder(tmp_path, "")
    assert results(tmp_path) is None
    first.write_metrics({"step": 1})
    first.write_summary({"steps": 1})
    first.close()
    assert results(tmp_path) == tmp_path / "metrics.jsonl"
    assert ended(tmp_path)
    RunFolder(tmp_path, "", done=1).close()
    assert not ended(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_an_error_is_written_without_the_secret_in_its_url(tmp_path):
    rollout = Rollout(
        tokens=torch.tensor([1, 2]), sampled=torch.tensor([False, True]), logprobs=torch.zeros(2), seed=1,
        weight_version=torch.zeros(2, dtype=torch.int32), finish_reason=FinishReason.stop,
    )  # fmt: skip
    errors = ("ConnectError: https://host/score?token=hunter2", None)
    problem, episode = Problem(id="0", prompt="p", answer="a"), Episode(rollout=rollout, turns=["a"], scored="a")
    scores = [Score(reward=None if error else 1.0, error=error) for error in errors]
    folder = RunFolder(tmp_path, "")
    folder.write_rollouts(1, [Sample(problem=problem, episode=episode, score=score) for score in scores])
    folder.close()
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert [row["reward_error"] for row in rows] == ["ConnectError: https://host/score?token=***", None]
