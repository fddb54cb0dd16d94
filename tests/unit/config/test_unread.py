"""A key that the user sets and nothing reads is refused; a recipe or a group's file may set such keys."""

from copy import deepcopy
from dataclasses import fields

import pytest

from rlsync.config.compose import compose_eval, compose_train
from rlsync.config.data import DataConfig
from rlsync.config.environment import EnvironmentConfig
from rlsync.config.reads import READ
from rlsync.config.reward import RewardFunctionConfig
from rlsync.config.unread import unread
from rlsync.errors import ConfigError

ALWAYS_READ = {
    DataConfig: {"source", "warm_start_percent", "weight"},
    EnvironmentConfig: {"kind"},
    RewardFunctionConfig: {"kind"},
}
"""Fields that every kind of their component reads, or that NEVER in config/reads.py treats by their place."""
SETS = ["+data@eval.sets.a=chain_sum"]
MIXED = ["data=mixture", "+data@data.parts.a=chain_sum"]
REWARDS = ["+reward@reward.parts.a=exact"]


@pytest.mark.parametrize("component", ALWAYS_READ, ids=lambda c: c.__name__)
def test_each_field_of_a_component_with_kinds_is_decided(component):
    """A new field needs a line in READ (config/reads.py), or in the set above if every kind reads it."""
    names = {field.name for field in fields(component)}
    assert names == READ[component].keys() | ALWAYS_READ[component]


UNREAD = [
    ([], "data.path=/nonexistent.jsonl", "data.source=file or hub"),
    (["reward=exact"], "reward.function=no.such.module", "reward.kind=function"),
    ([], "data.subset=x", "data.source=hub"),
    ([], "data.eval_path=x.jsonl", "data.source=file or hub"),
    (["data=file", "data.path=x"], "data.hub_split=test", "data.source=hub"),
    (["data=file", "data.path=x"], "data.task=chain_sums", "data.source=reasoning_gym"),
    (["data=file", "data.path=x"], "data.task_args={min_terms: 2}", "data.source=reasoning_gym"),
    ([], "data.system_prompt=Think", "data.chat=true"),
    ([], "data.prompt_column=question", "data.source=file or hub"),
    (["data=gsm8k"], "data.held_out_percent=20", "data.eval_split empty"),
    ([], "data.weight=2", "only a part of a mixture has a weight"),
    (MIXED, "data.template={question}!", "data.parts.NAME.template"),
    (MIXED, "data.parts.a.held_out_percent=20", "the mixture's own percentage"),
    (SETS, "eval.sets.a.path=x.jsonl", "eval.sets.a.source=file or hub"),
    (SETS, "eval.sets.a.warm_start_percent=1", "held-out problems only"),
    (["eval.problems=0"], "eval.samples=4", "eval.problems set"),
    ([], "eval.k=[1,1]", "eval.samples set"),
    ([], "environment.max_turns=8", "environment.kind=calculator or custom"),
    (["environment=calculator"], "environment.path=a:B", "environment.kind=custom"),
    (["environment=calculator"], "environment.args.limit=3", "environment.kind=custom"),
    ([], "reward.pattern=x", "reward.kind=regex"),
    ([], "reward.judge_url=http://x", "reward.kind=judge"),
    ([], "reward.batched=true", "reward.kind=function"),
    ([], "reward.isolation=process", "reward.kind=function"),
    ([], "reward.boxed=true", "reward.kind=math_verify"),
    ([], "data.chat_args={enable_thinking: false}", "data.chat=true"),
    (["reward=judge", "reward.judge_url=http://x"], "reward.timeout_s=3", "reward.judge_timeout_s"),
    ([], "reward.batch_size=8", "reward.kind=model or reward.batched=true"),
    ([], "reward.code_partial=true", "reward.kind=code"),
    ([], "reward.model_gpus=0.5", "reward.kind=model"),
    (REWARDS, "reward.pattern=x", "reward.parts.NAME.pattern"),
    (REWARDS, "reward.parts.a.pattern=x", "reward.parts.a.kind=regex"),
    (["model=tiny_qwen3"], "model.path=x", "model.source=huggingface"),
    (["model=huggingface", "model.path=x"], "model.tiny.layers=2", "model.source=tiny"),
    (["model=huggingface", "model.path=x"], "model.cache_dir=x", "model.source=tiny"),
    (["model=huggingface", "model.path=."], "model.revision=x", "a hub id"),
    ([], "model.lora.alpha=32", "model.lora.rank set"),
    ([], "critic.lr=1e-4", "algorithm.advantage=gae"),
    ([], "algorithm.gamma=0.9", "algorithm.advantage=gae"),
    (["algorithm=rloo"], "algorithm.normalize_std=false", "algorithm.advantage=grpo"),
    (["algorithm=gspo"], "algorithm.dual_clip=3", "algorithm.loss=ppo_clip"),
    ([], "algorithm.kl=k2", "algorithm.kl_coef set"),
    ([], "algorithm.kl_model=x", "algorithm.kl_coef set"),
    ([], "algorithm.overlong_penalty=2", "algorithm.overlong_buffer set"),
    ([], "algorithm.max_resamples=2", "algorithm.dynamic_sampling=true"),
    ([], "trainer.min_lr_ratio=0.1", "trainer.schedule other than constant"),
    ([], "trainer.save_keep=2", "trainer.save_every set"),
    (["kernels=native"], "trainer.prefix_tree=true", "kernels.mode=invariant"),
    (["kernels=native"], "kernels.tree_leaves=4", "kernels.mode=invariant"),
    (["kernels.row_parallel=gather"], "kernels.tree_leaves=4", "kernels.row_parallel=tree"),
    ([], "rollout.gpu_memory_utilization=0.8", "cluster.device=cuda"),
    (["cluster=local_gpu"], "rollout.gpu_memory_utilization=0.8", "rollout.kv_cache_mib=0"),
    ([], "rollout.cuda_graphs=false", "cluster.device=cuda"),
    ([], "cluster.placement=separate", "cluster.device=cuda"),
    ([], "parity.fault_step=3", "parity.fault other than none"),
    (["telemetry=files_only"], "telemetry.project=x", "telemetry.wandb other than disabled"),
]


@pytest.mark.parametrize(("context", "setting", "wanted"), UNREAD, ids=[case[1] for case in UNREAD])
def test_what_nothing_reads_is_refused_by_name(context, setting, wanted):
    with pytest.raises(ConfigError) as told:
        compose_train([*context, setting])
    key = setting.partition("=")[0].replace(".limit", "")
    assert told.value.message.startswith(f"{key}")
    assert "has no effect" in told.value.message
    assert wanted in told.value.message


READ_THERE = [
    "data=file data.path=x.jsonl data.eval_path=y.jsonl data.prompt_column=q data.chat=true data.system_prompt=T",
    "data=gsm8k data.warm_start_percent=5 data.held_out_percent=20",
    "data=mixture +data@data.parts.a=chain_sum data.parts.a.weight=2 data.held_out_percent=9",
    "environment=custom environment.path=a:B environment.max_turns=8 environment.role=user +environment.args.x=1",
    "reward=function reward.function=a:b reward.batched=true reward.batch_size=8 reward.timeout_s=3 reward.parallel=2",
    "+reward@reward.parts.a=regex reward.parts.a.pattern=x reward.shuffle=true",
    "algorithm=ppo critic.lr=1e-4 algorithm.gamma=0.9 algorithm.kl_coef=0.1 algorithm.kl=k2 algorithm.kl_model=a/b",
    "algorithm=dapo algorithm.max_resamples=2 algorithm.overlong_buffer=8 algorithm.overlong_penalty=2",
    "model.path=a/b model.revision=x model.lora.rank=4 model.lora.alpha=32 trainer.save_every=1 trainer.save_keep=2",
    "cluster=local_gpu rollout.kv_cache_mib=0 rollout.gpu_memory_utilization=0.8 rollout.cuda_graphs=false",
    "cluster.device=cuda cluster.placement=separate trainer.schedule=cosine trainer.min_lr_ratio=0.1",
    "+data@eval.sets.a=gsm8k eval.sets.a.hub_split=x eval.samples=4 eval.k=[4] eval.only=[a] model.tiny.layers=2",
]


@pytest.mark.parametrize("command", READ_THERE)
def test_control_what_is_read_is_taken(command):
    compose_train(command.split(" "))


@pytest.mark.parametrize(
    "command",
    [
        "recipe=ppo_arithmetic_tiny_cpu algorithm=grpo algorithm.group_size=8",  # the recipe's critic.lr
        "recipe=grpo_calculator_tiny_cpu environment=none",  # its environment.max_turns
        "recipe=grpo_calculator_tiny_cpu data=mixture +data@data.parts.a=chain_sum",  # its data.task
        "recipe=grpo_calculator_tiny_cpu data=file data.path=x.jsonl",
        "data=gsm8k data.source=file data.path=x.jsonl",  # the group's eval_split
        "algorithm=dr_grpo algorithm.advantage=rloo",
        "algorithm=dr_grpo algorithm.advantage=reinforce_pp",
        "recipe=grpo_arithmetic_small_1gpu cluster=local_cpu",  # sizes of a GPU's run
        "recipe=grpo_arithmetic_tiny_cpu model=huggingface model.path=x",
        "recipe=grpo_arithmetic_small_1gpu model.path=x",  # its model.tiny
        "recipe=grpo_math_qwen3_1_7b_8gpu rollout.kv_cache_mib=64",  # its gpu_memory_utilization
    ],
)
def test_what_a_recipe_or_a_group_sets_may_go_unread(command):
    compose_train(command.split(" "))


def test_a_checkpoint_is_evaluated_with_the_command_that_trained_it(tmp_path):
    command = ["recipe=grpo_arithmetic_tiny_cpu", "model.tiny.warm_start_steps=200", "model.cache_dir=elsewhere"]
    compose_eval([*command, f"model.path={tmp_path}"])
    with pytest.raises(ConfigError, match=r"model\.tiny\.warm_start_steps=200 has no effect.*model\.source=tiny"):
        compose_eval([*command, "model.path=Qwen/Qwen3-0.6B"])


@pytest.mark.parametrize("setting", ["critic.lr=1e-5", "reward.pattern=", "data.eval_path=''", "parity.fault_step=2"])
def test_the_default_says_nothing_new(setting):
    compose_train([setting])


def test_an_option_of_which_nothing_is_read():
    with pytest.raises(ConfigError, match=r"reward=math_verify has no effect.*reward\.parts\.NAME\.kind"):
        compose_train([*REWARDS, "reward=math_verify"])
    assert compose_train([*REWARDS, "reward=shuffled"]).reward.shuffle


def test_an_unread_reward_field_of_a_recipe_does_nothing():
    """As if a recipe had set it: the function and its batches belong to another kind."""
    config = deepcopy(compose_train([]))
    config.reward.batched, config.reward.function = True, "no.such:module"
    assert "reward.kind=function" in str(unread(config, "reward.batched"))
    from rlsync.rewards.build import batch_size

    assert batch_size(config.reward) == 1
