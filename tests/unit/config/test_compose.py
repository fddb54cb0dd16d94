"""Every shipped configuration composes; every mistake is named."""

import pytest

from rlsync.config.compose import compose_train, to_yaml, valid_keys
from rlsync.config.paths import group_options, recipe_names
from rlsync.errors import ConfigError


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_composes(recipe):
    config = compose_train([f"recipe={recipe}"])
    assert config.run.name == recipe
    assert "trainer:" in to_yaml(config)


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, options in group_options().items() for o in options])
def test_every_group_option_composes(group, option):
    needed = {
        "model=huggingface": ["model.path=x"],
        "data=file": ["data.path=x"],
        "data=hub": ["data.path=x"],
        "reward=function": ["reward.function=a:b"],
    }
    compose_train([f"{group}={option}", *needed.get(f"{group}={option}", [])])


def test_the_command_line_wins_over_the_recipe():
    config = compose_train(["recipe=grpo_arithmetic_tiny_cpu", "trainer.steps=3", "seed=5", "kernels=native"])
    assert (config.trainer.steps, config.seed, config.kernels.mode) == (3, 5, "native")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.stpes=3", r"trainer\.stpes.*Nearest valid: trainer\.steps"),
        ("+trainer.foo=3", r"foo"),
        ("rolout.tp=2", r"rolout\.tp.*rollout\.tp"),
        ("trainer.steps=many", r"trainer\.steps.*many"),
        ("trainer.schedule=step", r"trainer\.schedule.*step"),
        ("kernels=fast", r"kernels=fast.*invariant, native"),
        ("recipe=grpo_arithmetic", r"grpo_arithmetic_tiny_cpu"),
        ("algorithm.group_size=1", r"group_size=1.*at least 2"),
        ("rollout.tp=3", r"rollout\.tp=3.*tree_leaves=8.*gather"),
        ("trainer.steps=0", r"trainer\.steps=0"),
        ("rollout.temperature=0", r"rollout\.temperature"),
        ("kernels.tree_leaves=six", r"tree_leaves=six"),
        ("model.source=huggingface", r"model\.path is empty"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        compose_train([override])


def test_tp_three_is_allowed_in_the_gather_form():
    assert compose_train(["rollout.tp=3", "kernels.row_parallel=gather"]).leaves == 1


def test_auto_leaves_take_the_rollouts_tp():
    assert compose_train(["rollout.tp=4", "kernels.tree_leaves=auto"]).leaves == 4


def test_valid_keys_are_dotted():
    assert {"seed", "trainer.lr", "model.tiny.layers"} <= set(valid_keys())
