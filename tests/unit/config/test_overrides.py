"""Text fields keep their text, free dictionaries take new keys, and options and overrides come in any order."""

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsync.cli import main
from rlsync.config.compose import compose_train
from rlsync.config.overrides import quoted
from rlsync.errors import ConfigError

RECIPE = "recipe=grpo_arithmetic_tiny_cpu"
FILE = ["data=file", "data.path=x.jsonl"]
HUB = ["data=hub", "data.path=a/b"]
MODEL = ["model.path=a/b"]


def _value(overrides, key):
    found = compose_train(overrides)
    for name in key.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


@pytest.mark.parametrize(
    ("context", "key", "text"),
    [
        *(([], "run.name", text) for text in ("2026_10_01", "1e3", "true", "null", "it's", "a,b", "a=b", "[1]")),
        (HUB, "data.subset", "2024_1"),
        (HUB, "data.hub_split", "train[:10]"),
        (MODEL, "model.revision", "5e10"),
        ([], "run.dir", "~/mine"),
        (["data=file"], "data.path", "/data/{a}, (b) #2.jsonl"),
        (FILE, "data.template", "{question} = ? \\boxed{{}} "),
        (["reward=regex"], "reward.pattern", r"####\s*(-?\d+)$"),
        (["+reward@reward.parts.a=regex"], "reward.parts.a.pattern", r"^\d"),
        (["+data@eval.sets.a=hub"], "eval.sets.a.path", "1_0"),
        (["environment=custom"], "environment.path", "file.py:Class"),
    ],
)  # fmt: skip
def test_a_text_is_kept(context, key, text):
    assert _value([*context, f"{key}={text}"], key) == text


def test_texts_of_a_list_are_kept():
    sets = ["+data@eval.sets.2024_1=chain_sum", "+data@eval.sets.true=chain_sum"]
    assert _value([*sets, "eval.only=[2024_1, true]"], "eval.only") == ["2024_1", "true"]


def test_other_fields_are_read_as_before():
    config = compose_train(["trainer.lr=1e-3", "trainer.steps=1_000", "data.subset=null", "trainer.prefix_tree=null"])
    assert (config.trainer.lr, config.trainer.steps) == (0.001, 1000)
    assert config.data.subset is None
    assert config.trainer.prefix_tree is None
    assert compose_train(["seed=7", "run.name=run_${seed}"]).run.name == "run_7"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("'it\\'s \"quoted\"'", 'it\'s "quoted"'),
        ('"  blanks  "', "  blanks  "),
        ("''", ""),
        ("'open", "'open"),
    ],
)
def test_quotes_that_reach_hydra_are_taken_off(written, kept):
    assert _value([*FILE, f"data.prompt_column={written}"], "data.prompt_column") == kept


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_quoted(text):
    assert OverridesParser.create().parse_override(f"run.name={quoted(text)}").value() == text


@pytest.mark.parametrize("key", ["data.template", "environment.template"])
def test_a_line_break_in_a_template(key):
    context = ["environment=calculator", f"{key}={{question}}{{message}}" r"\nThink\\nothing \boxed{{1}}"]
    assert _value(context, key) == "{question}{message}\nThink\\nothing \\boxed{{1}}"
    quotes = ["environment=calculator", f'{key}="{{question}}{{message}}' r'\nThink"']
    assert _value(quotes, key) == "{question}{message}\nThink"


def test_a_pattern_has_no_line_break():
    assert _value(["reward=regex", r"reward.pattern=a\nb"], "reward.pattern") == r"a\nb"  # the control


def test_a_number_for_a_text_in_braces_is_named():
    with pytest.raises(ConfigError, match=r"run\.name=20261001: run\.name is a text, but .* as int.*quotes"):
        compose_train(["run={name: 2026_10_01}"])
    assert _value(["run={name: '2026_10_01'}"], "run.name") == "2026_10_01"


@pytest.mark.parametrize(
    ("overrides", "key", "arguments"),
    [
        (["data=reasoning_gym", "data.task_args={min_terms: 2}"], "data.task_args", {"min_terms": 2}),
        (["data=reasoning_gym", "data.task_args.min_terms=2"], "data.task_args", {"min_terms": 2}),
        (["data=reasoning_gym", "+data.task_args.min_terms=2"], "data.task_args", {"min_terms": 2}),
        (["environment=custom", "environment.path=a:B", "environment.args.n=2"], "environment.args", {"n": 2}),
        (["environment=custom", "environment.path=a:B", "environment.args={n: [1]}"], "environment.args", {"n": [1]}),
        (
            ["+data@eval.sets.a=reasoning_gym", "eval.sets.a.task_args={min_terms: 2}"],
            "eval.sets.a.task_args",
            {"min_terms": 2},
        ),
    ],
)
def test_a_free_dictionary_takes_new_keys(overrides, key, arguments):
    assert _value(overrides, key) == arguments


@pytest.mark.parametrize("place", range(4))
def test_options_and_overrides_come_in_any_order(place, capsys):
    words = ["seed=5", RECIPE, "run.name=mine"]
    words.insert(place, "--dry-run")
    assert main(["train", *words]) == 0
    shown = yaml.safe_load(capsys.readouterr().out.rpartition("\n\n")[0])
    assert (shown["seed"], shown["run"]["name"], shown["trainer"]["steps"]) == (5, "mine", 24)


@pytest.mark.parametrize("words", [["train", "seed=1", "--dry"], ["train", "--", "seed=1", "--dry-run"]])
def test_control_shortened_options_and_overrides_after_two_dashes(words, capsys):
    if "--" in words:
        words = ["train", "--dry-run", "--", "seed=1"]
    assert main(words) == 0
    assert "seed: 1" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["train", "seed=1", "--foo"], ["eval", "-x"], ["parity", "seed=1"]])
def test_an_unknown_option_is_named(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert f"{words[-1]!r}: no such option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run.name="], r"run\.name=''"),
        (["run.name=a\nb"], r"run\.name='a\\nb': must consist of printable"),
        (["run.name=" + "x" * 300], r"at most 255 bytes"),
        (["data=file", "data.path=" + "x" * 300 + ".jsonl"], r"data\.path=x.*at most 255 bytes"),
        (["run.dir=a\0b"], r"run\.dir=.*NUL"),
        (["telemetry.project=\udc80"], r"telemetry\.project=.*not valid Unicode"),
        (["trainer.steps=" + "9" * 40], r"trainer\.steps=.* must lie between -2\^31 and 2\^31"),
        (["trainer.lr=" + "9" * 400], r"trainer\.lr: the value has more than 300 digits"),
        (["environment=calculator", "environment.timeout_s=1e300"], r"timeout_s=1e\+300: must be at most 1e\+09 s"),
        (["trainer=3"], r"trainer=3: no such option. Valid: fsdp2"),
        (["~data"], r"~data: a group cannot be left out"),
        (["no.such=1"], r"unknown key 'no\.such'\. Keys begin with seed, run, model"),
        (["eval.k=1"], r"eval\.k: .*write a list in brackets, eval\.k=\[\.\.\.\]"),
        (["run.name=???"], r"run\.name has no value\. Give one: run\.name=VALUE"),
        (["data.template=${question}"], r"data\.template: .*\\\$\{"),
    ],
)  # fmt: skip
def test_mistakes_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        compose_train(overrides)
