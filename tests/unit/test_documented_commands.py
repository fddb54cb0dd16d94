"""Every command that the documentation or a configuration file shows is composed, as --dry-run would do."""

import re
import shlex
from pathlib import Path

import pytest

from rlsync.cli import _arguments, main
from rlsync.config.compose import compose_eval, compose_train
from rlsync.config.fields import type_at
from rlsync.config.paths import group_options
from rlsync.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "rlsync/kernels/README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("recipes/*/README.md"),
    ]
)
CONFIGS = sorted([*ROOT.glob("configs/*/*.yaml"), *ROOT.glob("configs/*.yaml"), *ROOT.glob("recipes/*/recipe.yaml")])
PLACEHOLDERS = {
    "recipe=NAME": "recipe=grpo_arithmetic_tiny_cpu",
    "key=value": "seed=1",
    "eval.samples=k": "eval.samples=8",
}
COMPOSE = {"train": compose_train, "eval": compose_eval}
CONTEXTS = [
    [], ["environment=calculator"], ["reward=function", "reward.function=a:b"], ["data=file", "data.path=x"],
    ["algorithm=ppo"], ["cluster=local_gpu"], ["model.lora.rank=8"], ["model=huggingface", "model.path=a/b"],
    ["reward=judge", "reward.judge_url=http://x"], ["reward=code"], ["reward=math_verify"],
    ["reward=model", "reward.model_path=x"],
    ["data=file", "data.path=x", "data.chat=true"], ["algorithm.kl_coef=0.1"], ["trainer.save_every=1"],
    ["+data@data.parts.a=chain_sum"], ["+data@eval.sets.NAME=gsm8k"], ["reward=regex", "reward.pattern=x"],
    ["environment=custom", "environment.path=a:B"], ["+reward@reward.parts.NAME=exact"],
    ["rollout.max_model_len=2048"],
]  # fmt: skip
"""Settings that make one that is mentioned by itself compose."""


def _lines(path):
    """Lines of a page, those that a backslash continues in one; in a configuration file the comments."""
    text = path.read_text().replace("\\\n", " ")
    lines = text.splitlines()
    return lines if path.suffix == ".md" else [line.partition("#")[2] for line in lines]


def _commands(path, program):
    """Commands of a program: lines of code that begin with it, and whole spans of `code`."""
    for line in _lines(path):
        begun = re.match(rf"\s*({program} .*)", line)
        spans = re.findall(rf"`({program} [^`]*)`", line) + re.findall(rf"# or: ({program} .*)", line)
        yield from ([begun[1]] if begun and "`" not in line else []) + spans


def _words(command):
    return [_filled(word) for word in shlex.split(command, comments=True)]


def _filled(word):
    return PLACEHOLDERS.get(word, word).replace("HOST:PORT", "localhost:8000")


def _is_override(word):
    key = re.match(r"[+~]*([\w.]+)(@[\w.]+)?=.", word)
    return bool(key) and (key[1] in ("recipe", *group_options()) or type_at(key[1]) is not None)


RLSYNC = sorted({command for path in [*PAGES, *CONFIGS] for command in _commands(path, "rlsync")})


@pytest.mark.parametrize("command", RLSYNC)
def test_a_command_composes(command, capsys):
    words = _words(command)[1:]
    if "--help" in words:
        with pytest.raises(SystemExit, match="0"):
            main(words)
        return
    if words[0] in COMPOSE and len(words) > 1:
        assert main([*words, "--dry-run"]) == 0, capsys.readouterr().err
    elif words[0] == "report":
        _arguments([*words, "runs/NAME"])  # a sentence may name the command without its runs
    elif words[0] == "trace":
        run = [] if len(words) > 1 else ["runs/NAME"]  # as for a report
        _arguments([*({"N": "3", "I": "0"}.get(word, word) for word in words), *run])
    elif words[0] in (*COMPOSE, "parity", "wandb-workspace"):  # `rlsync eval` is a name in a sentence
        _arguments(words)
    else:
        assert words[0] in ("rollout", "makes")  # of a sentence


def test_commands_are_found():
    """The control: what is looked for is found."""
    assert len(RLSYNC) > 20
    assert sum("recipe=" in command for command in RLSYNC) > 15


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_configuration_s_comment_shows_composes(path):
    """The overrides of a comment, in one command with the option that the file is."""
    words = [word for line in _lines(path) if "=" in line and "`rlsync" not in line for word in _overrides(line)]
    if words:
        group, option = path.parent.name, path.stem
        chosen = [f"{group}={option}"] if group in group_options() else []
        compose_train([*chosen, *words, "rollout.max_model_len=2048"])


def _overrides(line):
    try:
        words = shlex.split(line)
    except ValueError:  # an apostrophe
        words = line.split()
    words = [word.strip("`,;:").removesuffix(".").strip("`").lstrip("(") for word in words]
    words = [word if "(" in word else word.rstrip(")") for word in words]
    return [_filled(word) for word in words if _is_override(word)]


def _mentions():
    """Settings in `code` by themselves, as in README's table."""
    for path in PAGES:
        for span in re.findall(r"`([^`]*=[^`]*)`", path.read_text().replace("\n", " ")):
            words = tuple(_overrides(span))
            if words and len(words) == len(span.split()) and "=OPTION" not in span:
                yield words


def _likely_first(words):
    """The contexts in the order in which they are tried: none, those of the same component, and the others."""
    component = re.match(r"[+~]*(\w+)", words[0])[1]
    return sorted(CONTEXTS, key=lambda context: bool(context) and not context[0].lstrip("+").startswith(component))


@pytest.mark.parametrize("words", sorted(set(_mentions())), ids=" ".join)
def test_a_setting_that_is_mentioned_composes(words):
    errors = []
    for context in _likely_first(words):
        try:
            compose_train([*context, *words])
            return
        except ConfigError as error:
            errors.append(f"{context}: {error}")
    pytest.fail("\n".join(errors))


def test_the_pattern_that_is_shown_finds_an_answer():
    (line,) = (line for line in _lines(ROOT / "configs/reward/regex.yaml") if "pattern" in line)
    pattern = compose_train(_overrides(line)).reward.pattern
    assert re.search(pattern, "so it is\n#### -12")[1] == "-12"
