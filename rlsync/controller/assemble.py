"""Checks what the user gave, and prepares what a run needs before its actors start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from transformers import PreTrainedTokenizerBase

from rlsync.config.model import ModelSource
from rlsync.config.reward import RewardKind
from rlsync.config.run import TrainConfig
from rlsync.controller.evaluator import EvalSet
from rlsync.controller.problems import draw_set, select, training_problems, wanted
from rlsync.controller.tiny_model import tiny_model
from rlsync.data.open_source import open_source
from rlsync.data.problem import Problem, Split
from rlsync.data.source import ProblemSource
from rlsync.data.stops import generation_stop_ids
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.environments.build import environment_maker
from rlsync.errors import error_context
from rlsync.models.checks import (
    ModelUse,
    check_critic,
    check_model,
    check_reference,
    check_reward_models,
    vocab_size,
)
from rlsync.models.load import resolved
from rlsync.models.paths import ModelPaths
from rlsync.rewards.model_reward import ModelReward
from rlsync.rewards.scorer import Scorer


@dataclass(slots=True, kw_only=True)
class Prepared:
    """Everything that a run needs besides its processes."""

    models: ModelPaths
    scorer: Scorer
    codec: TextCodec
    training: list[Problem]
    """Training problems; empty in an evaluation."""
    sets: list[EvalSet]
    reward_models: list[ModelReward]
    """Rewards of all scorers that need a reward model and still have to be connected to its actor."""


def prepare(config: TrainConfig, say: Callable[[str], None], *, trains: bool = True) -> Prepared:
    """Load or make what a run needs besides its processes; with `trains` this includes training problems.

    Raises:
        ConfigError: Something that the user gave is wrong. No actor has been started.
    """
    use = model_use(config)
    if config.model.source is ModelSource.huggingface:
        check_model(resolved(config.model.path), use)
    check_reward_models(config.reward)
    environment_maker(config.environment)  # to raise its errors before anything is started
    source = open_source(config.data)
    scorer = Scorer(config.reward, source)
    training = source.problems(Split.train, wanted(config), config.seed) if trains else []
    drawn = [draw_set(config, name, source) for name in config.eval.chosen if config.eval.problems]
    policy = model_folder(config, source, use, say)
    tokenizer = load_tokenizer(policy, config.model.revision)
    models = _check_companions(config, policy, tokenizer, use) if trains else ModelPaths(policy=policy)
    make_codec = partial(
        TextCodec,
        tokenizer,
        extra_stop_ids=generation_stop_ids(policy, config.model.revision),
        environment=config.environment,
        vocab_size=vocab_size(policy, use),
    )
    codec = make_codec(config.data)
    kinds = {part.kind for part in config.reward.parts.values()} or {config.reward.kind}
    sets, scorers = [], [scorer]
    for each in drawn:
        with error_context(f"evaluation set {each.name}"):
            own = make_codec(each.data)
            kept = select(own, each.problems, each.name, say)
        # Only reward=task depends on the set. Other scorers are shared, because each may need its own process.
        if RewardKind.task in kinds and each.source is not source:
            scorers.append(Scorer(config.reward, each.source))
            sets.append(EvalSet(name=each.name, problems=kept, codec=own, scorer=scorers[-1]))
        else:
            sets.append(EvalSet(name=each.name, problems=kept, codec=own, scorer=scorer))
    if trains:
        training = training_problems(config, source, codec, sets, training, say)
        scorer.check(training, say)
    for evaluated in sets:
        with error_context(f"evaluation set {evaluated.name}"):
            evaluated.scorer.check(evaluated.problems, say)
    reward_models = [model for each in scorers for model in each.models]
    return Prepared(
        models=models, scorer=scorer, codec=codec, training=training, sets=sets, reward_models=reward_models
    )


def model_use(config: TrainConfig) -> ModelUse:
    """Return the parts of the configuration that the run's models must fit."""
    return ModelUse(
        model=config.model,
        kernels=config.kernels,
        leaves=config.leaves,
        rollout=config.rollout,
        device=config.cluster.device,
        local=config.cluster.address is None,
    )


def model_folder(config: TrainConfig, source: ProblemSource, use: ModelUse, say: Callable[[str], None]) -> str:
    """Return the folder or hub id of the initial policy; a tiny model is made if it does not exist yet."""
    if config.model.source is ModelSource.huggingface:
        return resolved(config.model.path)
    return tiny_model(config, source, use, say)


def _check_companions(
    config: TrainConfig, policy: str, tokenizer: PreTrainedTokenizerBase, use: ModelUse
) -> ModelPaths:
    """Resolve the critic and the reference, and check those that do not start from the policy's model."""
    critic, reference = "", ""
    if config.algorithm.has_critic:
        critic = resolved(config.critic.path or policy)
        if config.critic.path:
            check_critic(critic, policy, tokenizer, use)
    if config.algorithm.kl_coef:
        reference = resolved(config.algorithm.kl_model or policy)
        if config.algorithm.kl_model:
            check_reference(reference, policy, tokenizer, use)
    return ModelPaths(policy=policy, critic=critic, reference=reference)
