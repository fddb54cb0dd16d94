"""Good configurations with mistakes made at random: each is accepted, or refused with exit code 2 and one sentence.

RLSYNC_MUTATIONS sets their number. A test's number is its seed, so it reproduces a failure.
"""

import json
import os
import random
import time

import pytest

from rlsync.cli import main
from rlsync.config.compose import compose_train
from rlsync.config.fields import valid_keys
from rlsync.config.paths import group_options, recipe_names
from rlsync.controller import assemble as preparing
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.errors import ConfigError, in_one_line

COUNT = int(os.environ.get("RLSYNC_MUTATIONS", "40"))
LIMIT_S = 10

GOOD = [
    [],
    *([f"recipe={name}"] for name in recipe_names()),
    ["model=huggingface", "model.path=folder", "data=file", "data.path=problems.jsonl", "reward=math_verify"],
    ["data=mixture", "+data@data.parts.a=chain_sum", "+data@data.parts.b=file", "data.parts.b.path=b.jsonl"],
    ["+data@eval.sets.extra=countdown", "eval.samples=8", "eval.k=[1,8]", "eval.only=[extra]"],
    ["+reward@reward.parts.right=exact", "+reward@reward.parts.form=regex", 'reward.parts.form.pattern="="'],
    ["reward=function", "reward.function=module:name", "reward.batched=true", "reward.timeout_s=5"],
    ["reward=code", "reward.code_timeout_s=2"],
    ["reward=judge", "reward.judge_url=http://localhost:1/score"],
    ["environment=custom", "environment.path=file.py:Class", "environment.args.limit=3"],
    ["algorithm=ppo", "critic.lr=1e-4", "algorithm.gae_lambda=0.95", "algorithm.kl_coef=0.01"],
    ["algorithm=dapo", "algorithm.overlong_buffer=16", "trainer.minibatches=2"],
    ["cluster=local_gpu", "trainer.ranks=8", "rollout.engines=4", "rollout.tp=2", "rollout.kv_cache_mib=0"],
    ["kernels=native", "algorithm.tis_cap=2", "parity=warn"],
    ["data=reasoning_gym", "data.task=leg_counting", "data.task_args={max_animals: 4}"],
]
# fmt: off
NUMBERS = [
    "-1", "0", "1", "2", "3", "-0", "0.5", "-0.0", "1e3", "1e400", "1e-400", "nan", "inf", "-inf", "0x10", "1_000",
    "08",
    "1/3", "50%", "1,5", "12.", "+4", "--4", str(2**31), str(2**63), str(-(2**63)), "1" + "0" * 40, "9" * 400,
]
TEXTS = [
    "a", "true", "null", "~", "none", "None", "???", "yes", "1:30", "2026_10_01", "0b1", "x" * 5000, "", " ", "a b",
    "two\nlines", "tab\there", "\r\n", "\\n", "\\", "a\\", "\0", "\x1b[31m", "\udc80", "\u202e",
    "na\u00efve \u65e5\u672c \U0001f600",
    "'", '"', "it's", '"open', "'open", "\"'", "a=b", "=", "a,b", "a:b", ":", ".", "..", "@", "*", "?", "<<<", "&",
    "%s", "#5",
    "$HOME", "${seed}", "${no.key}", "${", "{", "}", "{}", "{{", "{question}", "{a}", "{a: 1}", "[", "]", "[]",
    "[1,2]",
    "[a, [b]]", "(", "(?P<", "^[", "~/x", "../x", "/dev/null", "-x", "--dry-run", "http://[", "x" * 300 + ".jsonl",
    "!!python/object:os.system",
]
# fmt: on
UNKNOWN_FLAGS = ["--foo", "-x", "--dry-run=yes", "--", "-"]


def _key(r):
    """A valid key, possibly of a part or a set, or as often a key with a mistake."""
    keys = [key for key in valid_keys() if key not in ("data.parts", "eval.sets", "reward.parts")]
    key = r.choice(keys)
    if key.startswith("data.") and r.random() < 0.4:
        key = r.choice(["data.parts.a", "data.parts.b", "eval.sets.extra", "eval.sets.none"]) + key.removeprefix("data")
    if key.startswith("reward.") and r.random() < 0.3:
        key = r.choice(["reward.parts.form", "reward.parts.none"]) + key.removeprefix("reward")
    if r.random() < 0.25:
        at = r.randrange(len(key))
        key = r.choice(
            [key[:at] + key[at + 1 :], key[:at] + r.choice("xX._ -é@~+'\n") + key[at:], key.upper(), key + ".x",
             key.rpartition(".")[0] or "x", key.split(".")[-1], ""]
        )  # fmt: skip
    return key


def _value(r):
    return r.choice(r.choice([NUMBERS, TEXTS]))


def _assignment(r):
    sign = r.choice([""] * 8 + ["+", "++", "~"])
    return r.choice([f"{sign}{_key(r)}={_value(r)}"] * 9 + [sign + _key(r)])


def _choice(r):
    groups = group_options()
    group = r.choice([*groups, "recipe"])
    options = recipe_names() if group == "recipe" else r.choice(list(groups.values()))
    package = r.choice([""] * 5 + ["@eval.sets.extra", "@data.parts.a", "@reward.parts.form", "@nowhere", "@"])
    return f"{r.choice(['', '', '', '+', '~'])}{group}{package}={r.choice([*options, _value(r)])}"


def mutated(seed):
    """A valid command line with one to three mistakes, or with values that contradict each other."""
    r = random.Random(seed)
    overrides = list(r.choice(GOOD))
    for _ in range(r.randint(1, 3)):
        place = r.randint(0, len(overrides))
        action = r.random()
        if action < 0.6:
            overrides.insert(place, _assignment(r))
        elif action < 0.8:
            overrides.insert(place, _choice(r))
        elif action < 0.9 and overrides:
            overrides.pop(r.randrange(len(overrides)))
        elif action < 0.95 and overrides:
            index = r.randrange(len(overrides))
            overrides[index] = overrides[index].partition("=")[0] + "=" + _value(r)
        else:
            overrides.insert(place, r.choice(UNKNOWN_FLAGS))
    overrides.insert(r.randint(0, len(overrides)), "--dry-run")
    return [r.choice(["train", "train", "eval"]), *overrides]


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_configuration_is_accepted_or_refused_in_a_sentence(seed, capsys):
    arguments, started = mutated(seed), time.process_time()
    try:
        code = main(arguments)
    except SystemExit as end:  # argparse, for an option that there is not
        code = end.code
    taken = time.process_time() - started
    out, err = capsys.readouterr()
    assert code in (0, 2), arguments
    assert "Traceback" not in out + err
    assert taken < LIMIT_S
    if code == 0:
        assert "trainer:" in out
        assert err == ""
        return
    *usage, message = err.removesuffix("\n").split("\n")
    if usage:
        assert usage[0].startswith("usage: rlsync")
    else:
        assert message.startswith("rlsync: ")
    assert message.isprintable(), arguments
    assert 20 < len(message) < 1000, arguments


FILE = ["data=file", "data.path=problems.jsonl"]
PREPARABLE = [
    [],
    FILE,
    [*FILE, "data.eval_path=problems.jsonl"],
    ["data=mixture", "+data@data.parts.a=chain_sum", "+data@data.parts.b=file", "data.parts.b.path=problems.jsonl"],
    ["+data@eval.sets.extra=file", "eval.sets.extra.path=problems.jsonl"],
    ["+reward@reward.parts.right=exact", "+reward@reward.parts.form=regex", "reward.parts.form.pattern=1"],
    ["reward=function", "reward.function=math:sqrt"],
    ["environment=custom", "environment.path=math:sqrt"],
    ["environment=calculator"],
    ["data=reasoning_gym", "data.task=leg_counting"],
]
SMALL = ["trainer.steps=2", "eval.problems=8", "algorithm.prompts_per_step=2"]


@pytest.mark.parametrize("seed", range(COUNT // 10))
def test_what_composes_is_prepared_or_refused(seed, tmp_path, monkeypatch):
    """Read and check everything as for a run, with a tokenizer in place of a model."""
    monkeypatch.chdir(tmp_path)
    build_char_tokenizer(tmp_path / "model", "abcdefghijklmnopqrstuvwxyz0123456789+-=<>(). ")
    monkeypatch.setattr(preparing, "model_folder", lambda *_: str(tmp_path / "model"))
    rows = [{"prompt": f"p {i}", "answer": str(i)} for i in range(100)]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    r = random.Random(seed)
    keys = [key for key in valid_keys() if key.startswith(("data.", "eval.", "reward.", "environment."))]
    base = [*SMALL, *r.choice(PREPARABLE)]
    started = time.process_time()
    while True:
        try:
            config = compose_train([*base, f"{r.choice(keys)}={_value(r)}"])
            break
        except ConfigError:
            continue
    message = ""
    try:
        preparing.prepare(config, lambda line: None)
    except ConfigError as error:
        message = in_one_line(error.message)
    assert len(message) < 1000
    assert time.process_time() - started < LIMIT_S * 4
