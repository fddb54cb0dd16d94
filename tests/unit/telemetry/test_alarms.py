"""The alarms of configs/alarms/default.yaml on histories that ought to set them off, and on one that ought not."""

import json
import math
from pathlib import Path

import pytest

from rlsync.config.alarms import AlarmAction, AlarmConfig, AlarmKind, Reference
from rlsync.config.compose import compose_train
from rlsync.controller.step_log import applicable
from rlsync.telemetry.alarms import Alarms

HEALTHY = {
    "reward/mean": 0.5, "reward/std": 0.4, "reward/errors": 0, "reward/samples": 64, "reward/groups": 8,
    "reward/groups_without_signal": 2, "response/truncated_share": 0.1, "train/entropy": 0.5, "train/grad_norm": 1.0,
    "train/kl_reference": 0.01, "train/loss": 0.0, "parity/tokens_different": 0, "parity/rows_different": 0,
}  # fmt: skip
RECORDED = Path(__file__).with_name("healthy_run.jsonl")
"""Metrics of a run of the recipe grpo_arithmetic_tiny_cpu, as far as alarms look at them."""
WARN = ["parity.on_divergence=warn"]


def _alarms(*overrides):
    return Alarms(compose_train([*WARN, *overrides]).alarms)


def _rows(*changes):
    """One row for each change of the healthy values, with a little noise."""
    rows = []
    for index, change in enumerate(changes, start=1):
        noise = 1 + 0.1 * math.sin(7 * index)
        row = {**HEALTHY, "reward/mean": 0.5 * noise, "train/grad_norm": noise, "train/entropy": 0.5 * noise}
        rows.append({"step": index, **row, **change})
    return rows


def _fired(alarms, rows):
    return [(each.step, each.name) for row in rows for each in alarms.check(row)]


GOOD = [{}] * 12
CASES = [
    ("tokens_differ", [{}, {"parity/tokens_different": 3, "parity/rows_different": 5}], 2),
    ("rows_differ", [{}, {"parity/rows_different": 5}], 2),
    ("not_finite", [{}, {"train/loss": math.nan}], 2),
    ("not_finite", [{}, {"critic/loss": math.inf}], 2),
    ("all_rewards_equal", [{"reward/std": 0.0, "reward/groups_without_signal": 8}] * 4, 3),
    ("all_truncated", [{"response/truncated_share": 1.0}] * 5, 2),
    ("no_signal", [{"reward/groups_without_signal": 8}] * 4, 3),
    ("truncation", [{"response/truncated_share": 0.6}] * 4, 3),
    ("scorer_errors", [{}, {"reward/errors": 7}], 2),
    ("reward_collapse", [*GOOD, *[{"reward/mean": 0.1}] * 6], 15),
    ("reward_collapse", [*[{"reward/mean": -0.2}] * 12, *[{"reward/mean": -0.9}] * 6], 14),
    ("entropy_collapse", [*GOOD, *[{"train/entropy": 0.01}] * 6], 17),
    ("kl_explosion", [*GOOD, *[{"train/kl_reference": 2.0}] * 3], 14),
    ("gradient_spike", [*GOOD, {"train/grad_norm": 40.0}], 13),
]


@pytest.mark.parametrize(("name", "changes", "step"), CASES, ids=[f"{case[0]}-{case[2]}" for case in CASES])
def test_an_alarm_fires_once_at_its_step_and_no_other_fires(name, changes, step):
    assert _fired(_alarms(), _rows(*changes)) == [(step, name)]
    assert _fired(_alarms(f"alarms.{name}.enabled=false", *_covering(name)), _rows(*changes)) == []
    assert name in compose_train([]).alarms


def _covering(name):
    """What the alarm covers would be told in its place."""
    return [
        f"alarms.{each}.enabled=false" for each, config in compose_train([]).alarms.items() if config.covered_by == name
    ]


def test_every_default_alarm_has_a_case_and_says_what_to_do():
    alarms = compose_train([]).alarms
    assert {case[0] for case in CASES} == set(alarms)
    assert all(alarm.advice.endswith(".") for alarm in alarms.values())


def test_a_healthy_history_is_silent():
    rising = [{"reward/mean": 0.1 + 0.01 * n, "train/entropy": 0.5 - 0.003 * n} for n in range(80)]
    assert _fired(_alarms(), _rows(*[{}] * 100)) == []
    assert _fired(_alarms(), _rows(*rising)) == []


def test_small_rewards_near_zero_are_no_collapse():
    small = [{"reward/mean": 0.04 if n < 20 else 0.0} for n in range(40)]
    assert _fired(_alarms(), _rows(*small)) == []


def test_an_alarm_fires_again_only_after_its_condition_has_cleared():
    bad, good = {"reward/errors": 60}, {}
    rows = _rows(bad, bad, good, bad, good, good, bad, good, good, good, bad, bad)
    alarms, flags = _alarms(), []
    fired = []
    for row in rows:
        fired += [each.step for each in alarms.check(row)]
        flags.append(alarms.flags()["alarms/scorer_errors"])
    assert fired == [1, 11]
    assert flags == [1] * 9 + [0, 1, 1]


def test_what_an_alarm_covers_is_told_when_that_one_has_cleared():
    rows = _rows(*[{"response/truncated_share": 1.0}] * 3, *[{"response/truncated_share": 0.8}] * 5)
    assert _fired(_alarms(), rows) == [(2, "all_truncated"), (6, "truncation")]


def test_a_replayed_history_goes_on_without_telling_again():
    rows = _rows({}, *[{"reward/errors": 60}] * 4, *[{}] * 3, {"reward/errors": 60})
    for done in range(len(rows)):
        whole, resumed = _alarms(), _alarms()
        fired = [_fired(whole, [row]) for row in rows]
        resumed.replay(rows[:done])
        assert [_fired(resumed, [row]) for row in rows[done:]] == fired[done:]
        assert resumed.flags() == whole.flags()


def test_a_message_has_the_values_and_the_advice():
    (fired,) = _alarms().check(_rows({"reward/errors": 16})[0])
    assert fired.message == (
        "step 1: reward/errors / reward/samples is 0.25, above 0.1. These samples have no reward and train nothing. "
        "The field reward_error in rollouts.jsonl says why."
    )
    assert (fired.value, fired.actions) == (0.25, [AlarmAction.log, AlarmAction.alert])
    alarms = _alarms()
    rows = _rows(*[{"reward/std": 0.0, "reward/mean": 1.0}] * 3)
    (fired,) = [each for row in rows for each in alarms.check(row)]
    assert fired.message.startswith("step 3: reward/std is 0, below 1e-12 for 3 steps in a row. Every reward is 1, and")
    assert "too easy" in fired.message
    alarms = _alarms()
    (fired,) = [each for row in _rows(*GOOD, *[{"reward/mean": 0.1}] * 5) for each in alarms.check(row)]
    assert (
        "reward/mean is 0.1 on average over the last 3 steps, below 0.5 times its best earlier mean of" in fired.message
    )


def _rule(**fields):
    return Alarms({"mine": AlarmConfig(metric="reward/mean", **fields)})


def _values(*values):
    return [{"step": step, "reward/mean": value} for step, value in enumerate(values, start=1)]


def test_a_value_that_stays_equal():
    alarms = _rule(kind=AlarmKind.equal, for_steps=3)
    assert _fired(alarms, _values(1, 2, 2, 2, 3, 3, 3, 3)) == [(8, "mine")]


def test_a_trend_against_an_earlier_mean_in_both_directions():
    fields = {"kind": AlarmKind.trend, "reference": Reference.mean, "min_history": 3, "history": 3}
    assert _fired(_rule(above=2.0, **fields), _values(1, 1, 1, 1.9, 2.7)) == [(5, "mine")]
    assert _fired(_rule(below=0.5, **fields), _values(-1, -1, -1, -1.4, -2.0)) == [(5, "mine")]
    assert _fired(_rule(above=2.0, min_change=5, **fields), _values(1, 1, 1, 1.9, 2.7)) == []
    assert _fired(_rule(above=2.0, **fields), _values(0, 0, 0, 5)) == []  # nothing is a multiple of 0


def test_steps_without_the_metric_change_nothing():
    alarms = Alarms({"mine": AlarmConfig(metric="eval/accuracy", below=0.5, for_steps=2, clear_steps=1)})
    rows = [{"step": 1, "eval/accuracy": 0.1}, {"step": 2}, {"step": 3, "eval/accuracy": 0.1}, {"step": 4}]
    assert _fired(alarms, rows) == [(3, "mine")]
    assert alarms.flags() == {"alarms/mine": 1}
    alarms.check({"step": 5, "eval/accuracy": 0.9})
    assert alarms.flags() == {"alarms/mine": 0}


def test_a_threshold_does_not_hold_for_nan():
    assert _fired(_rule(above=0.0), _values(math.nan)) == []


def test_a_metric_that_the_first_step_lacks_is_named():
    alarms = Alarms(
        {
            "typo": AlarmConfig(metric="reward/maen", above=1.0),
            "rare": AlarmConfig(metric="eval/accuracy", above=1.0),
            "good": AlarmConfig(metric="reward/errors", over="reward/samples", above=1.0),
        }
    )
    (told,) = alarms.unknown(_rows({})[0])
    assert told.startswith(
        "alarms.typo: this run has no metric reward/maen, so the alarm never fires. Nearest: reward/mean"
    )


@pytest.mark.parametrize(
    ("overrides", "left_out"),
    [
        ([], {"tokens_differ", "rows_differ"}),
        (WARN, set()),
        ([*WARN, "kernels=native"], {"tokens_differ", "rows_differ"}),
        ([*WARN, "algorithm=ppo"], {"no_signal"}),
        ([*WARN, "algorithm=reinforce_pp"], {"no_signal"}),
        ([*WARN, "algorithm=rloo"], set()),
    ],
)
def test_alarms_that_say_nothing_in_a_run_are_left_out(overrides, left_out):
    config = compose_train(overrides)
    assert set(config.alarms) - set(applicable(config)) == left_out


def test_a_run_that_has_happened_is_silent():
    rows = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    assert len(rows) == 24
    assert _fired(_alarms(), rows) == []
    worse = [{**row, "reward/mean": 0.05} if row["step"] > 18 else row for row in rows]
    assert _fired(_alarms(), worse) == [(21, "reward_collapse")]  # the control
