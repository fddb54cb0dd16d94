"""What is logged to wandb, read back from the files of an offline run."""

import json
import sys

import pytest
import torch
from offline_run import config, history, of_kind, records, table

from rlsync.config.telemetry import TelemetryConfig, WandbMode
from rlsync.data.problem import Problem
from rlsync.samples import Episode, FinishReason, Rollout, Sample, Score
from rlsync.telemetry.alarms import Fired
from rlsync.telemetry.histograms import step_histograms
from rlsync.telemetry.sample_table import COLUMNS, is_due, sample_rows
from rlsync.telemetry.wandb_mode import WandbChoice
from rlsync.telemetry.wandb_sink import RunDescription, WandbSink, wandb_line

SECRET = "hunter2hunter2hunter2"
OFFLINE = WandbChoice(mode=WandbMode.offline)


def sample(number, *, reward=1.0, response=3, parts=None, text="21"):
    tokens = torch.arange(2 + response)
    own = tokens >= 2
    rollout = Rollout(
        tokens=tokens, sampled=own, logprobs=torch.where(own, -0.25, 0.0), seed=number,
        weight_version=own.int(), finish_reason=FinishReason.stop,
    )  # fmt: skip
    return Sample(
        problem=Problem(id=str(number), prompt=f"{number}+1=", answer=str(number + 1)),
        episode=Episode(rollout=rollout, turns=[text], scored=text),
        score=Score(reward=reward, parts=parts or {}, error=None if reward is not None else "no number"),
        advantage=torch.where(own, number - 0.5, 0.0).double(),
    )


def text_of(ids):
    return "".join(chr(ord("a") + each) for each in ids)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of an offline run of two steps; the second has differing log-probs and an alarm."""
    monkeypatch.setattr(sys, "argv", ["rlsync", "train", f"data.path=https://u:{SECRET}@h/x"])
    about = RunDescription(
        project="p", entity="e", name="n", folder=tmp_path, config={"seed": 3, "provenance": {"device": "d"}},
        tags=["grpo", "qwen3"], notes="rlsync train seed=3",
    )  # fmt: skip
    sink = WandbSink(OFFLINE, about, print)
    samples = [sample(0, reward=0.0), sample(1, parts={"form": 0.5, "right": 1.0}), sample(2, reward=None)]
    rows = sample_rows(samples, TelemetryConfig(samples=3, samples_logprobs=1), step=1, text_of=text_of)
    sink.log({"step": 1, "reward/mean": 0.5}, step_histograms(samples, []), rows)
    sink.log({"step": 2, "reward/mean": 0.25, "alarms/a": 1}, step_histograms(samples, [0, 2]), [])
    sink.alert(Fired(step=2, name="a", value=1.0, message="step 2: it happened. Do this.", actions=[]))
    place = sink.place
    sink.finish(0)
    assert place.startswith(f"wandb sync {tmp_path}/wandb/offline-run-")
    assert wandb_line(place) == f"wandb: offline; to upload the run: {place}"
    return tmp_path


def test_scalars_histograms_and_alarms(run):
    first, second = history(run)
    assert (first["step"], first["reward/mean"], second["reward/mean"], second["alarms/a"]) == (1, 0.5, 0.25, 1)
    assert sum(first["reward/histogram:values"]) == 2  # the third has no reward
    assert sum(first["response/length_histogram:values"]) == 3
    assert sum(first["train/advantage_histogram:values"]) == 2
    assert not any("ulp" in key for key in first)
    assert second["parity/ulp_log2_histogram:values"] == [0, 2]
    assert second["parity/ulp_log2_histogram:bins"] == [0, 1, 2]
    (alert,) = of_kind(run, "alert")
    assert (alert.title, alert.text) == ("rlsync: a", "step 2: it happened. Do this.")


def test_the_table_of_samples(run):
    first, second = history(run)
    rows = table(run, first)
    assert list(rows[0]) == COLUMNS
    assert not any("samples/table" in key for key in second)
    assert [row["problem"] for row in rows] == ["0", "1", "2"]
    assert rows[1] | {"logprobs": None} == {
        "step": 1, "problem": "1", "prompt": "1+1=", "completion": "21", "answer": "2", "reward": 1.0,
        "reward_parts": '{"form": 0.5, "right": 1.0}', "advantage": 0.5, "tokens": 3, "finish_reason": "stop",
        "logprobs": None,
    }  # fmt: skip
    assert json.loads(rows[0]["logprobs"]) == [["c", -0.25], ["d", -0.25], ["e", -0.25]]
    assert [row["logprobs"] for row in rows[1:]] == ["", ""]
    assert (rows[2]["reward"], rows[2]["completion"]) == (None, "21\n[no reward: no number]")


def test_configuration_tags_notes_and_the_axis(run):
    (about,) = of_kind(run, "run")
    assert (about.project, about.entity, about.display_name) == ("p", "e", "n")
    assert (list(about.tags), about.notes) == (["grpo", "qwen3"], "rlsync train seed=3")
    assert config(run)["seed"] == 3
    assert config(run)["provenance"] == {"device": "d"}
    metrics = {metric.name or metric.glob_name: metric for metric in of_kind(run, "metric")}
    assert {"reward/*", "parity/*", "alarms/*", "samples/*", "memory/*"} <= metrics.keys()
    assert all(metric.step_metric == "step" for name, metric in metrics.items() if name != "step")
    for name in ("reward/mean", "eval/accuracy"):
        assert (metrics[name].summary.max, metrics[name].summary.last) == (True, True)


def test_secrets_in_the_arguments_are_hidden(run):
    assert SECRET not in "".join(str(record) for record in records(run))
    assert "data.path=https://***@h/x" in "".join(str(record) for record in records(run))
    assert SECRET in sys.argv[2]  # the control: the process itself still has it


def test_a_resumed_run_is_uploaded_with_its_parts(tmp_path):
    about = RunDescription(project="p", entity=None, name="n", folder=tmp_path, run_id="abc")
    sink = WandbSink(OFFLINE, about, print)
    assert (sink.place, sink.run_id) == (f"wandb sync {tmp_path}/wandb/*-abc", "abc")
    sink.finish(0)


def test_disabled_writes_nothing(tmp_path):
    about = RunDescription(project="p", entity=None, name="n", folder=tmp_path)
    sink = WandbSink(WandbChoice(mode=WandbMode.disabled), about, print)
    sink.log({"step": 1}, [], [])
    sink.finish(0)
    assert (sink.place, sink.run_id, sink.entity, list(tmp_path.iterdir())) == ("", None, None, [])


def test_rows_are_spread_over_the_samples_and_bounded():
    samples = [sample(n, text="x" * 9000, response=700) for n in range(64)]
    rows = sample_rows(samples, TelemetryConfig(), step=1, text_of=text_of)
    assert [int(row.problem) for row in rows] == list(range(0, 64, 4))
    assert all(len(row.completion) < 4100 and "5000 characters left out" in row.completion for row in rows)
    shown = json.loads(rows[0].logprobs)
    assert (len(shown), shown[-1]) == (513, "188 more")
    assert len(sample_rows(samples[:3], TelemetryConfig(), step=1, text_of=text_of)) == 3


def test_a_special_token_is_shown_by_its_id():
    (row,) = sample_rows([sample(0, response=1)], TelemetryConfig(), step=1, text_of=lambda ids: "")
    assert json.loads(row.logprobs) == [["<2>", -0.25]]


def test_steps_with_a_table():
    assert [step for step in range(1, 26) if is_due(TelemetryConfig(), step, 25)] == [1, 10, 20, 25]
    assert not any(is_due(TelemetryConfig(samples_every=0), step, 3) for step in (1, 2, 3))


def test_a_histogram_with_a_critic_has_an_advantage_for_each_token():
    critic = sample(0)
    critic.value = object()
    counts = {each.key: sum(each.counts) for each in step_histograms([critic, sample(1)], [])}
    assert counts["train/advantage_histogram"] == 4
