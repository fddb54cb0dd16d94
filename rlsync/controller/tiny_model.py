"""The tiny model of the CPU recipes: built and warm-started on demonstrations at its first use, then cached."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from rlsync import __version__
from rlsync.checkpoint.export import export_model
from rlsync.config.cluster import Device
from rlsync.config.data import DataConfig
from rlsync.config.environment import EnvironmentKind
from rlsync.config.kernels import KernelMode
from rlsync.config.run import TrainConfig
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.problem import Problem, Split
from rlsync.data.source import ProblemSource
from rlsync.data.text import TextCodec, load_tokenizer
from rlsync.environments.demonstrations import TILDE, styles, words
from rlsync.models.checks import ModelUse, check_heads, check_length, check_model, check_shapes
from rlsync.models.tiny import MAX_POSITIONS, Example, build_tiny, rewarded_style, warm_start
from rlsync.paths import check_writable, expanded

_BASE_CHARACTERS = "0123456789+-*/=(). "
_WARM_START_THREADS = 2
_COLUMNS = {"prompt_column", "answer_column", "answer_parser"}
_TINY_READS = _COLUMNS | {"subset", "hub_split", "eval_path", "eval_split", "parts"}
"""Fields of the data configuration that affect the tiny model if they differ from their defaults."""


def tiny_model(config: TrainConfig, source: ProblemSource, use: ModelUse, say: Callable[[str], None]) -> str:
    """Return the folder of the tiny model; the model is built and warm-started if the cache does not have it.

    Args:
        config: The run's configuration.
        source: Source of the warm start's problems.
        use: What the model is checked against.
        say: Prints a line for the user.
    """
    tiny = config.model.tiny
    check_length(MAX_POSITIONS, config.rollout)
    check_heads(tiny.heads, tiny.kv_heads, config.rollout.tp)
    if config.kernels.mode is KernelMode.invariant:
        check_shapes("model.tiny.head_dim", tiny.heads, tiny.head_dim, tiny.intermediate_size, use)
    folder = expanded(config.model.cache_dir) / f"tiny_{_tiny_key(config)}"
    if not (folder / "config.json").is_file():
        check_writable(folder.parent, "model.cache_dir")
        say(f"building the tiny model with {tiny.warm_start_steps} warm-start steps (only once; cached in {folder})")
        gpu = config.cluster.device is Device.cuda and torch.cuda.is_available()
        _make_tiny(config, source, folder, torch.device("cuda" if gpu else "cpu"), say)
    check_model(str(folder), use, "model.cache_dir")
    return str(folder)


def _make_tiny(
    config: TrainConfig, source: ProblemSource, folder: Path, device: torch.device, say: Callable[[str], None]
) -> None:
    tiny = config.model.tiny
    torch.set_num_threads(_WARM_START_THREADS)  # fixed, because a library's sums may depend on it
    problems = source.problems(Split.warm_start, tiny.warm_start_problems, tiny.seed)
    text = "".join(p.prompt + p.answer for p in problems)
    characters = "".join(sorted(set(text) | set(_BASE_CHARACTERS + TILDE)))
    with tempfile.TemporaryDirectory(prefix="rlsync-tiny-") as scratch:
        build_char_tokenizer(Path(scratch), characters, words(config.environment))
        tokenizer = load_tokenizer(scratch)
        eos, pad = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
        examples = _examples(TextCodec(tokenizer, config.data, environment=config.environment), problems, config, eos)
        model = build_tiny(tiny, len(tokenizer), eos, pad).to(device)  # type: ignore[arg-type]
        steps = tiny.warm_start_steps
        warm_start(model, examples, tiny, lambda step, loss: say(f"  warm start {step}/{steps}  loss {loss:.3f}"))
        state = {name: param.detach().cpu() for name, param in model.named_parameters()}
        export_model(state, model.config, torch.float32, scratch, folder)


def _examples(codec: TextCodec, problems: list[Problem], config: TrainConfig, eos: int) -> list[Example]:
    """Return the demonstrations, with one example for each turn of the model."""
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
    """Return a digest of everything that the tiny model depends on."""
    data, plain = asdict(config.data), asdict(DataConfig())
    always = ("source", "task", "task_args", "path", "template", "squeeze", "held_out_percent", "warm_start_percent")
    parts = {key: data[key] for key in data if key in always or (key in _TINY_READS and data[key] != plain[key])}
    if config.environment.kind is EnvironmentKind.calculator:
        parts["environment"] = config.environment.template
    text = json.dumps([asdict(config.model.tiny), MAX_POSITIONS, parts, __version__], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
