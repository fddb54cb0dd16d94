"""Select the problems that a run trains on, and those of its evaluations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from rlsync.config.data import DataConfig
from rlsync.config.evaluation import HELD_OUT
from rlsync.config.run import TrainConfig
from rlsync.controller.evaluator import EvalSet
from rlsync.data.mixture import part_at
from rlsync.data.open_source import open_source
from rlsync.data.problem import Problem, Split
from rlsync.data.source import ProblemSource
from rlsync.data.text import TextCodec
from rlsync.errors import DataError, error_context

HELD_OUT_SEED = 0
"""Seed of the held-out problems. It is fixed, so that they are the same in every run."""
_BARREN_DOUBLINGS = 3
"""The search for more usable problems ends after this many doublings in a row that found none."""


@dataclass(slots=True, kw_only=True)
class DrawnSet:
    """Held-out problems of a set, before a tokenizer is available to measure their prompts."""

    name: str
    data: DataConfig
    source: ProblemSource
    problems: list[Problem]


def draw_set(config: TrainConfig, name: str, source: ProblemSource) -> DrawnSet:
    """Draw the held-out problems of a set.

    Args:
        config: The run's configuration.
        name: Name of the set.
        source: Source of the training data.

    Raises:
        DataError: The set has no held-out problems.
    """
    data = config.data
    with error_context(f"evaluation set {name}"):
        if name != HELD_OUT:
            data = config.eval.sets[name]
            source = open_source(data)
        problems = source.problems(Split.held_out, config.eval.problems, HELD_OUT_SEED)
        if not problems:
            raise DataError("there are no held-out problems. Add rows, or raise data.held_out_percent")
    return DrawnSet(name=name, data=data, source=source, problems=problems)


def select(codec: TextCodec, problems: list[Problem], what: str, say: Callable[[str], None]) -> list[Problem]:
    """Return the problems whose prompts are not too long, and tell the user how many of each part are left out.

    Args:
        codec: Measures the prompts.
        problems: The problems.
        what: Name of the problems, for messages.
        say: Prints a line for the user.
    """
    kept, left_out = codec.select(problems)
    for part, count in sorted(left_out.items()):
        say(f"{what}: left out {count} problems{f' of {part}' if part else ''} with prompts over max_prompt_tokens")
    return kept


def wanted(config: TrainConfig) -> int:
    """Return the largest number of problems that the run's steps can draw."""
    algorithm = config.algorithm
    rounds = 1 + (algorithm.max_resamples if algorithm.dynamic_sampling else 0)
    return config.trainer.steps * algorithm.prompts_per_step * rounds


def training_problems(
    config: TrainConfig,
    source: ProblemSource,
    codec: TextCodec,
    sets: list[EvalSet],
    drawn: list[Problem],
    say: Callable[[str], None],
) -> list[Problem]:
    """Return the problems that the run can train on.

    If too few of `drawn` are usable, more are asked of the source, so no problem is repeated while the source has
    others, and a longer run begins like a shorter one. The search ends when the source has no more problems of the
    missing parts, or when several doublings in a row have found no usable ones.

    Args:
        config: The run's configuration.
        source: Source of the training data.
        codec: Measures the prompts.
        sets: Evaluation sets, whose problems are left out.
        drawn: The first problems of the source.
        say: Prints a line for the user.
    """
    count = wanted(config)
    shares = Counter(part_at(config.seed, index, config.data.weights) for index in range(count))
    # An evaluation set from another source may overlap the training data.
    evaluated = {problem.id for each in sets for problem in each.problems}
    have, barren = Counter[str](), 0
    while barren < _BARREN_DOUBLINGS:
        usable = (problem for problem in drawn if problem.id not in evaluated and codec.fits(problem))
        before, have = have, Counter(problem.part for problem in usable)
        short = shares - have
        if not short:
            break
        barren = 0 if any(have[part] > before[part] for part in short) else barren + 1
        count *= 2
        more = source.problems(Split.train, count, config.seed)
        if sum(problem.part in short for problem in more) == sum(problem.part in short for problem in drawn):
            break
        drawn = more
    fitting = select(codec, drawn, "training", say)
    kept = [problem for problem in fitting if problem.id not in evaluated]
    if len(kept) < len(fitting):
        say(f"training: left out {len(fitting) - len(kept)} problems that are in an evaluation set")
    return kept
