"""Everything a run needs before the actors start: model folder, problems, tokenizer, scorer. Checks come first."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from rlsync import __version__
from rlsync.checkpoint.export import export_model
from rlsync.config.cluster import Device
from rlsync.config.data import DataConfig
from rlsync.config.environment import EnvironmentKind
from rlsync.config.evaluation import HELD_OUT
from rlsync.config.kernels import KernelMode
from rlsync.config.model import ModelSource
from rlsync.config.reward import RewardKind
from rlsync.config.run import TrainConfig
from rlsync.controller.evaluator import EvalSet
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.mixture import part_at
from rlsync.data.problem import Problem, Split
from rlsync.data.source import ProblemSource, open_source
from rlsync.data.stops import generation_stop_ids
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.environments.build import environment_maker
from rlsync.environments.demonstrations import TILDE, styles, words
from rlsync.errors import DataError, told_of
from rlsync.models.checks import (
    check_companions,
    check_heads,
    check_length,
    check_model,
    check_reward_models,
    check_shapes,
    vocab_size,
)
from rlsync.models.load import resolved
from rlsync.models.tiny import MAX_POSITIONS, Example, build_tiny, rewarded_style, warm_start
from rlsync.paths import check_writable, expanded
from rlsync.rewards.model_reward import ModelReward
from rlsync.rewards.scorer import Scorer

HELD_OUT_SEED = 0
"""The held-out problems are the same in every run."""
_BASE_CHARACTERS = "0123456789+-*/=(). "
_WARM_START_THREADS = 2
_BARREN_DOUBLINGS = 3
"""Of the problems asked for, in a row without another one to train on, before the search for more ends."""
_COLUMNS = {"prompt_column", "answer_column", "answer_parser"}
_TINY_READS = _COLUMNS | {"subset", "hub_split", "eval_path", "eval_split", "parts"}
"""Fields of the data that the warm start reads besides the usual ones."""


@dataclass(slots=True, kw_only=True)
class Prepared:
    model_path: str
    scorer: Scorer
    codec: TextCodec
    training: list[Problem]
    """Empty where nothing is trained."""
    sets: list[EvalSet]
    reward_models: list[ModelReward]
    """Of all scorers: they wait for a process."""


@dataclass(slots=True, kw_only=True)
class _Drawn:
    """A set's held-out problems, before there is a tokenizer to measure them."""

    name: str
    data: DataConfig
    source: ProblemSource
    problems: list[Problem]


def prepare(config: TrainConfig, say: Callable[[str], None], *, trains: bool = True) -> Prepared:
    """Load or make all that the run reads.

    Args:
        trains: training problems are wanted besides the evaluation sets.
    Raises:
        ConfigError, DataError: whatever is wrong with what the user gave; nothing was started yet.
    """
    if config.model.source is ModelSource.huggingface:
        check_model(config, resolved(config.model.path))
    check_reward_models(config)
    environment_maker(config.environment)  # for its errors, before anything is started
    source = open_source(config.data)
    scorer = Scorer(config.reward, source)
    training = source.problems(Split.train, _wanted(config), config.seed) if trains else []
    drawn = [_draw(config, name, source) for name in config.eval.chosen if config.eval.problems]
    model_path = model_folder(config, source, say)
    tokenizer = load_tokenizer(model_path, config.model.revision)
    if trains:
        check_companions(config, model_path, tokenizer)
    make_codec = partial(
        TextCodec,
        tokenizer,
        extra_stop_ids=generation_stop_ids(model_path, config.model.revision),
        environment=config.environment,
        vocab_size=vocab_size(config, model_path),
    )
    codec = make_codec(config.data)
    kinds = {part.kind for part in config.reward.parts.values()} or {config.reward.kind}
    sets, scorers = [], [scorer]
    for each in drawn:
        with told_of(f"evaluation set {each.name}"):
            own = make_codec(each.data)
            kept = _select(own, each.problems, each.name, say)
        # Only the data's own scorer depends on the set; others may hold a process each.
        if RewardKind.task in kinds and each.source is not source:
            scorers.append(Scorer(config.reward, each.source))
            sets.append(EvalSet(name=each.name, problems=kept, codec=own, scorer=scorers[-1]))
        else:
            sets.append(EvalSet(name=each.name, problems=kept, codec=own, scorer=scorer))
    if trains:
        training = _training(config, source, codec, sets, training, say)
        scorer.check(training, say)
    for evaluated in sets:
        with told_of(f"evaluation set {evaluated.name}"):
            evaluated.scorer.check(evaluated.problems, say)
    models = [model for each in scorers for model in each.models]
    return Prepared(
        model_path=model_path, scorer=scorer, codec=codec, training=training, sets=sets, reward_models=models
    )


def _draw(config: TrainConfig, name: str, source: ProblemSource) -> _Drawn:
    """The held-out problems of the set `name`; `source` is the training data's."""
    data = config.data
    with told_of(f"evaluation set {name}"):
        if name != HELD_OUT:
            data = config.eval.sets[name]
            source = open_source(data)
        problems = source.problems(Split.held_out, config.eval.problems, HELD_OUT_SEED)
        if not problems:
            raise DataError("it has no held-out problems; add rows, or raise data.held_out_percent")
    return _Drawn(name=name, data=data, source=source, problems=problems)


def _select(codec: TextCodec, problems: list[Problem], what: str, say: Callable[[str], None]) -> list[Problem]:
    """The problems whose prompts are not too long; says how many of which part are."""
    kept, left_out = codec.select(problems)
    for part, count in sorted(left_out.items()):
        say(f"{what}: left out {count} problems{f' of {part}' if part else ''} with prompts over max_prompt_tokens")
    return kept


def _wanted(config: TrainConfig) -> int:
    """Problems that the run's steps take at most."""
    algorithm = config.algorithm
    rounds = 1 + (algorithm.max_resamples if algorithm.dynamic_sampling else 0)
    return config.trainer.steps * algorithm.prompts_per_step * rounds


def _training(
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
    count = _wanted(config)
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
    fitting = _select(codec, drawn, "training", say)
    kept = [problem for problem in fitting if problem.id not in evaluated]
    if len(kept) < len(fitting):
        say(f"training: left out {len(fitting) - len(kept)} problems that are in an evaluation set")
    return kept


def model_folder(config: TrainConfig, source: ProblemSource, say: Callable[[str], None]) -> str:
    """The model to start from; the tiny one is made and warm-started on first use."""
    if config.model.source is ModelSource.huggingface:
        return resolved(config.model.path)
    tiny = config.model.tiny
    check_length(MAX_POSITIONS, config)
    check_heads(tiny.heads, tiny.kv_heads, config.rollout.tp)
    if config.kernels.mode is KernelMode.invariant:
        check_shapes("model.tiny.head_dim", tiny.heads, tiny.head_dim, tiny.intermediate_size, config)
    folder = expanded(config.model.cache_dir) / f"tiny_{_tiny_key(config)}"
    if not (folder / "config.json").is_file():
        check_writable(folder.parent, "model.cache_dir")
        say(f"making the tiny model: {tiny.warm_start_steps} warm-start steps (once; kept in {folder})")
        gpu = config.cluster.device is Device.cuda and torch.cuda.is_available()
        _make_tiny(config, source, folder, torch.device("cuda" if gpu else "cpu"), say)
    check_model(config, str(folder), "model.cache_dir")
    return str(folder)


def _make_tiny(
    config: TrainConfig, source: ProblemSource, folder: Path, device: torch.device, say: Callable[[str], None]
) -> None:
    tiny = config.model.tiny
    torch.set_num_threads(_WARM_START_THREADS)  # a fixed number: sums of the library may depend on it
    problems = source.problems(Split.warm_start, tiny.warm_start_problems, tiny.seed)
    text = "".join(p.prompt + p.answer for p in problems)
    characters = "".join(sorted(set(text) | set(_BASE_CHARACTERS + TILDE)))
    with tempfile.TemporaryDirectory(prefix="rlsync-tiny-") as scratch:
        build_char_tokenizer(Path(scratch), characters, words(config.environment))
        tokenizer = load_tokenizer(scratch)
        eos, pad = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
        examples = _examples(TextCodec(tokenizer, config.data, environment=config.environment), problems, config, eos)
        model = build_tiny(tiny, len(tokenizer), eos, pad).to(device)
        steps = tiny.warm_start_steps
        warm_start(model, examples, tiny, lambda step, loss: say(f"  warm start {step}/{steps}  loss {loss:.3f}"))
        state = {name: param.detach().cpu() for name, param in model.named_parameters()}
        export_model(state, model.config, torch.float32, scratch, folder)


def _examples(codec: TextCodec, problems: list[Problem], config: TrainConfig, eos: int) -> list[Example]:
    """Demonstrations, an example for each turn of the model."""
    shown = [styles(problem, config.environment) for problem in problems]
    rewarded = [_turns(codec, problem, both.rewarded, eos) for problem, both in zip(problems, shown, strict=True)]
    other = [_turns(codec, problem, both.other, eos) for problem, both in zip(problems, shown, strict=True)]
    chosen = rewarded_style([problem.prompt for problem in problems], config.model.tiny)
    return [example for index, good in chosen for example in (rewarded if good else other)[index]]


def _turns(codec: TextCodec, problem: Problem, turns: list[str], eos: int) -> list[Example]:
    examples, before = [], codec.encode(problem)
    for number, turn in enumerate(turns):
        if number % 2:
            before = before + codec.encode_message(turn, problem)
            continue
        response = codec.encode(replace(problem, prompt=turn)) + ([eos] if number == len(turns) - 1 else [])
        examples.append(Example(before, response))
        before = before + response
    return examples


def _tiny_key(config: TrainConfig) -> str:
    """A digest of everything that the tiny model depends on."""
    data, plain = asdict(config.data), asdict(DataConfig())
    always = ("source", "task", "task_args", "path", "template", "squeeze", "held_out_percent", "warm_start_percent")
    parts = {key: data[key] for key in data if key in always or (key in _TINY_READS and data[key] != plain[key])}
    if config.environment.kind is EnvironmentKind.calculator:
        parts["environment"] = config.environment.template
    text = json.dumps([asdict(config.model.tiny), MAX_POSITIONS, parts, __version__], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
