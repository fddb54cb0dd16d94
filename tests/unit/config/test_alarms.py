"""The configuration of alarms: what can be set, and what is refused with a message."""

import pytest
import yaml

from rlsync.config.alarms import AlarmAction, AlarmKind
from rlsync.config.compose import compose_train, differences, to_yaml
from rlsync.errors import ConfigError


def test_alarms_are_switched_off_and_changed_one_by_one():
    alarms = compose_train(["alarms.reward_collapse.enabled=false", "alarms.kl_explosion.above=0.5"]).alarms
    assert not alarms["reward_collapse"].enabled
    assert alarms["kl_explosion"].above == 0.5
    assert alarms["kl_explosion"].for_steps == 2
    assert compose_train(["alarms=none"]).alarms == {}
    assert "truncation" not in compose_train(["~alarms.truncation"]).alarms


@pytest.mark.parametrize(
    "overrides",
    [
        ["+alarms.slow.metric=time/step", "+alarms.slow.above=60", "+alarms.slow.actions=[log,stop]"],
        ["+alarms.slow={metric: time/step, above: 60, actions: [log, stop]}"],
        ["alarms=none", "++alarms.slow.metric=time/step", "+alarms.slow.actions=[log,stop]", "alarms.slow.above=60"],
    ],
)
def test_an_alarm_is_added(overrides):
    slow = compose_train(overrides).alarms["slow"]
    assert (slow.metric, slow.above, slow.kind) == ("time/step", 60, AlarmKind.threshold)
    assert slow.actions == [AlarmAction.log, AlarmAction.stop]


MISTAKES = [
    (["alarms.reward_colapse.enabled=false"], r"there is no alarm reward_colapse\. Nearest: reward_collapse"),
    (["alarms.slow.above=3"], r"there is no alarm slow\..*\+alarms\.slow\.metric=KEY"),
    (["+alarms.slow.above=3"], r"alarms\.slow\.metric is empty"),
    (["+alarms.slow.metric=rewards/mean", "+alarms.slow.above=3"], r"=rewards/mean: no metric.*mean reward/mean\?"),
    (["+alarms.slow.metric=loss", "+alarms.slow.above=3"], r"metric=loss: no metric has this key\. Keys begin with"),
    (["+alarms.slow.metric=time/step"], r"alarms\.slow\.above and alarms\.slow\.below are not set"),
    (["+alarms.Slow.metric=time/step"], r"alarms\.Slow: .*small letters"),
    (["alarms.no_signal.over=group/s"], r"alarms\.no_signal\.over=group/s: no metric"),
    (["alarms.no_signal.for_steps=0"], r"alarms\.no_signal\.for_steps=0: must be at least 1"),
    (["alarms.gradient_spike.history=3"], r"alarms\.gradient_spike\.history=3: the reference needs"),
    (["alarms.gradient_spike.min_change=-1"], r"min_change=-1\.0: must not be negative"),
    (["alarms.no_signal.covered_by=x"], r"alarms\.no_signal\.covered_by=x: there is no such alarm"),
    (["alarms.no_signal.covered_by=no_signal"], r"cannot be covered by itself"),
    (["alarms.no_signal.actions=[shout]"], r"alarms\.no_signal\.actions.*shout.*log, alert, checkpoint, stop"),
    (["alarms.no_signal.window=3"], r"alarms\.no_signal\.window=3 has no effect.*kind=trend"),
    (["alarms.not_finite.above=3"], r"alarms\.not_finite\.above=3\.0 has no effect.*kind=threshold or trend"),
    (["alarms.entropy_collapse.history=9"], r"history=9 has no effect.*reference other than first"),
    (["alarms.not_finite.metric=reward"], r"alarms\.not_finite\.metric=reward: no metric"),
]


@pytest.mark.parametrize(("overrides", "told"), MISTAKES, ids=[" ".join(case[0]) for case in MISTAKES])
def test_a_mistake_is_refused_by_name(overrides, told):
    with pytest.raises(ConfigError, match=told) as error:
        compose_train(overrides)
    assert "\n" not in error.value.message


def test_the_written_configuration_has_what_differs_from_the_defaults():
    config = compose_train(["alarms=none", "+alarms.slow.metric=time/step", "+alarms.slow.above=60"])
    assert yaml.safe_load(to_yaml(config))["alarms"] == {"slow": {"metric": "time/step", "above": 60.0}}
    actions = yaml.safe_load(to_yaml(compose_train(["alarms.truncation.actions=[stop]"])))["alarms"]["truncation"]
    assert actions["actions"] == ["stop"]


def test_other_alarms_are_no_change_of_the_run(tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(compose_train([])))
    assert differences(tmp_path / "config.yaml", compose_train(["alarms=none"])) == []
    assert differences(tmp_path / "config.yaml", compose_train(["seed=1"])) != []  # the control


def test_the_recipe_is_known_and_cannot_be_set_by_hand():
    assert compose_train(["recipe=ppo_arithmetic_tiny_cpu"]).run.recipe == "ppo_arithmetic_tiny_cpu"
    assert compose_train([]).run.recipe == ""
    with pytest.raises(ConfigError, match=r"run\.recipe=x has no effect: recipe=NAME sets it"):
        compose_train(["run.recipe=x"])


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("telemetry.samples=0", r"telemetry\.samples=0: must be at least 1"),
        ("telemetry.samples_every=-1", r"telemetry\.samples_every=-1: must not be negative"),
        ("telemetry.tags=['']", r"telemetry\.tags: '' has 0 characters"),
    ],
)
def test_mistakes_in_telemetry(setting, told):
    with pytest.raises(ConfigError, match=told):
        compose_train([setting])
