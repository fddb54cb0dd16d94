"""Which problems a run trains on, and which it is evaluated with."""

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
from rlsync.errors import DataError, told_of

HELD_OUT_SEED = 0
"""Seed of the held-out problems, so that they are the same in every run."""
_BARREN_DOUBLINGS = 3
"""The search for more usable problems ends after this many doublings in a row that found none."""


@dataclass(slots=True, kw_only=True)
class DrawnSet:
    """A set's held-out problems, before there is a tokenizer to measure them."""

    name: str
    data: DataConfig
    source: ProblemSource
    problems: list[Problem]


def draw_set(config: TrainConfig, name: str, source: ProblemSource) -> DrawnSet:
    """The held-out problems of the set `name`; `source` is the training data's."""
    data = config.data
    with told_of(f"evaluation set {name}"):
        if name != HELD_OUT:
            data = config.eval.sets[name]
            source = open_source(data)
        problems = source.problems(Split.held_out, config.eval.problems, HELD_OUT_SEED)
        if not problems:
            raise DataError("it has no held-out problems; add rows, or raise data.held_out_percent")
    return DrawnSet(name=name, data=data, source=source, problems=problems)


def select(codec: TextCodec, problems: list[Problem], what: str, say: Callable[[str], None]) -> list[Problem]:
    """The problems whose prompts are not too long; says how many of which part are."""
    kept, left_out = codec.select(problems)
    for part, count in sorted(left_out.items()):
        say(f"{what}: left out {count} problems{f' of {part}' if part else ''} with prompts over max_prompt_tokens")
    return kept


def wanted(config: TrainConfig) -> int:
    """Problems that the run's steps take at most."""
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
    """The problems that can be trained on, of `drawn` or, where these are too few for the run, of all that it takes.

    So no problem comes twice while the source has others, and a longer run begins as a shorter one. A source that still
    makes problems, but none that can be used, is given up after some doublings of what it is asked for.
    """
    count = wanted(config)
    shares = Counter(part_at(config.seed, index, config.data.weights) for index in range(count))
    # A set of its own may overlap the training data.
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
