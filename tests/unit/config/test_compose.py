"""Every shipped configuration composes; every mistake is named."""

from dataclasses import fields

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
        "data=mixture": ["+data@data.parts.a=chain_sum"],
        "data=dapo_math": ["rollout.max_model_len=2048"],
        "reward=function": ["reward.function=a:b"],
        "environment=custom": ["environment.path=a:B"],
        "reward=judge": ["reward.judge_url=http://x"],
        "reward=model": ["reward.model_path=x"],
        "reward=regex": ["reward.pattern=a"],
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
        ("algorithm.loss=ppo", r"algorithm\.loss.*ppo"),
        ("algorithm.clip_low=1.5", r"clip_low=1\.5"),
        ("algorithm.dual_clip=0.5", r"dual_clip=0\.5.*above 1"),
        ("algorithm.entropy_coef=-1", r"entropy_coef=-1"),
        ("algorithm.overlong_buffer=300", r"overlong_buffer=300.*max_tokens=256"),
        ("algorithm.tis_cap=2", r"tis_cap=2.*kernels=invariant.*every weight would be 1.*kernels=native"),
        ("algorithm.prompts_per_step=0", r"prompts_per_step=0"),
        ("algorithm.gae_lambda=0.95", r"gae_lambda=0\.95 has no effect with algorithm\.advantage=grpo.*advantage=gae"),
        ("algorithm.gamma=0", r"gamma=0.*0 < gamma"),
        ("critic.lr=1e-4", r"critic\.lr=0\.0001 has no effect with algorithm\.advantage=grpo.*advantage=gae"),
        ("critic.clip=-1", r"critic\.clip=-1"),
        ("trainer.epochs=0", r"trainer\.epochs=0"),
        ("rollout.tp=3", r"rollout\.tp=3.*tree_leaves=8.*gather"),
        ("trainer.steps=0", r"trainer\.steps=0"),
        ("rollout.temperature=0", r"rollout\.temperature"),
        ("kernels.tree_leaves=six", r"tree_leaves=six"),
        ("kernels.tree_leaves=32", r"tree_leaves=32.*at most 16"),
        ("model.source=huggingface", r"model\.path is empty"),
        ("seed=-1", r"seed=-1: must not be negative"),
        (f"seed={2**63}", r"seed=9223372036854775808: .*less than 2\^63"),
        ("trainer.lr=nan", r"trainer\.lr=nan: must be a finite number"),
        ("trainer.lr=inf", r"trainer\.lr=inf: must be a finite number"),
        ("trainer.max_grad_norm=nan", r"trainer\.max_grad_norm=nan: must be a finite number"),
        ("rollout.temperature=nan", r"rollout\.temperature=nan"),
        ("cluster.stage_timeout_s=inf", r"cluster\.stage_timeout_s=inf: must be a finite number"),
        ("trainer.betas=[0.9,nan]", r"trainer\.betas=\[0\.9, nan\]: must be two numbers"),
        ("trainer.betas=[0.9]", r"trainer\.betas=\[0\.9\]: must be two numbers"),
        ("trainer.betas=[0.9,1.0]", r"trainer\.betas=\[0\.9, 1\.0\].*less than 1"),
        ("trainer.adam_eps=0", r"trainer\.adam_eps=0\.0.*positive"),
        ("trainer.weight_decay=-0.1", r"trainer\.weight_decay=-0\.1"),
        ("trainer.warmup_steps=-1", r"trainer\.warmup_steps=-1: must not be negative"),
        ("trainer.min_lr_ratio=1.5", r"trainer\.min_lr_ratio=1\.5.*at most 1"),
        ("algorithm.max_resamples=-1", r"max_resamples=-1: must not be negative"),
        ("rollout.max_num_seqs=0", r"rollout\.max_num_seqs=0"),
        (
            "rollout.max_num_batched_tokens=64",
            r"max_num_seqs=128.*max_num_batched_tokens=64: .*each request gets a token",
        ),
        ("rollout.block_size=0", r"rollout\.block_size=0: must be a positive multiple of 16"),
        ("rollout.gpu_memory_utilization=1.1", r"gpu_memory_utilization=1\.1.*at most 1"),
        ("cluster.trainer_cpus=-1", r"cluster\.trainer_cpus=-1"),
        ("cluster.startup_timeout_s=0", r"cluster\.startup_timeout_s=0.*positive"),
        ("model.tiny.layers=0", r"model\.tiny\.layers=0: must be at least 1"),
        ("model.tiny.kv_heads=3", r"tiny\.heads=4, model\.tiny\.kv_heads=3: .*multiple"),
        ("model.tiny.head_dim=31", r"model\.tiny\.head_dim=31: must be even"),
        ("model.tiny.warm_start_style_share=2", r"warm_start_style_share=2"),
        ("model.tiny.seed=-3", r"model\.tiny\.seed=-3"),
        ("trainer.steps=1,2", r"trainer\.steps=1,2: .*trainer\.steps=\[\.\.\.\]"),
        ("+environment.args.home=~/mine", r"environment\.args\.home=~/mine: .*'environment\.args\.home=\"~/mine\"'"),
        ("seed", "seed: write an override as key=value"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        compose_train([override])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm.kl=k1", "algorithm.kl_coef=0.1"], r"kl=k1.*kl_in=loss.*k2 or kl=k3"),
        (["algorithm.kl_model=x"], r"kl_model=x.*kl_coef=0"),
        (["algorithm=gspo", "algorithm.dual_clip=3"], r"dual_clip=3.*loss=gspo"),
        (
            ["algorithm=reinforce_pp", "algorithm.dynamic_sampling=true"],
            r"dynamic_sampling=true.*reinforce_pp_baseline",
        ),
        (["algorithm=reinforce_pp", "algorithm.normalize_std=false"], r"normalize_std=false.*advantage=grpo"),
        (["algorithm=ppo", "algorithm.loss=gspo"], r"loss=gspo.*advantage=gae.*cispo"),
        (["algorithm=ppo", "algorithm.normalize_std=false"], r"normalize_std=false.*algorithm\.whiten"),
        (["algorithm=ppo", "algorithm.dynamic_sampling=true"], r"dynamic_sampling=true.*advantage=gae"),
        (["algorithm=ppo", "algorithm.gae_lambda=1.5"], r"gae_lambda=1\.5.*0 <= gae_lambda <= 1"),
        (["algorithm=ppo", "critic.warmup_steps=100"], r"warmup_steps=100.*trainer\.steps=100.*never train"),
        (["algorithm=dapo", "algorithm.max_resamples=0"], r"max_resamples=0"),
        (["algorithm=dapo", "trainer.minibatches=16"], r"minibatches=16.*group_size=8"),
        (["kernels=native", "algorithm.tis_cap=0.5"], r"tis_cap=0\.5.*below 1"),
        (["parity.fault=ulp", "trainer.steps=1"], r"fault_step=2: parity\.fault=ulp.*trainer\.steps=1"),
        (["parity.fault=ulp", "parity.fault_step=0"], r"fault_step=0"),
        (
            ["+reward@reward.parts.a=exact", "reward.parts.a.weight=nan"],
            r"reward\.parts\.a\.weight=nan: must be a finite",
        ),
    ],
)
def test_mistakes_of_two_fields_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_train(overrides)


def test_what_is_unusual_and_makes_sense_is_taken():
    config = compose_train(
        [
            "trainer.lr=0",
            "trainer.max_grad_norm=inf",
            "trainer.steps=1",
            "trainer.betas=[0,0]",
            f"seed={2**63 - 1}",
            "algorithm.dynamic_sampling=false",
            "model.tiny.hidden_size=100",
            "environment=custom",
            "environment.path=a:B",
            "+environment.args.limit=inf",
        ]
    )
    assert (config.trainer.lr, config.trainer.max_grad_norm) == (0, float("inf"))
    assert config.environment.args == {"limit": float("inf")}


def test_an_algorithm_changes_what_its_paper_says_alone():
    default, gspo = (compose_train(o).algorithm for o in ([], ["algorithm=gspo"]))
    changed = {f.name for f in fields(default) if getattr(default, f.name) != getattr(gspo, f.name)}
    assert changed == {"name", "loss", "aggregation", "clip_low", "clip_high"}


def test_truncated_importance_sampling_is_for_native_kernels():
    assert compose_train(["kernels=native", "algorithm.tis_cap=2"]).algorithm.tis_cap == 2


def test_tp_three_is_allowed_in_the_gather_form():
    assert compose_train(["rollout.tp=3", "kernels.row_parallel=gather"]).leaves == 1


def test_auto_leaves_take_the_rollouts_tp():
    assert compose_train(["rollout.tp=4", "kernels.tree_leaves=auto"]).leaves == 4


def test_valid_keys_are_dotted():
    assert {"seed", "trainer.lr", "model.tiny.layers"} <= set(valid_keys())


def test_exact_kernels_alone_share_prefixes():
    assert compose_train([]).share_prefixes
    assert not compose_train(["trainer.prefix_tree=false"]).share_prefixes
    assert not compose_train(["kernels=native"]).share_prefixes
    assert not compose_train(["cluster=local_gpu"]).share_prefixes
    assert compose_train(["cluster=local_gpu", "trainer.prefix_tree=true"]).share_prefixes
