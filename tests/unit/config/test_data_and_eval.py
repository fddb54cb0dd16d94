"""Rules of data and evaluation: each mistake is named with its field, its value and the fix."""

from __future__ import annotations

import pytest

from rlsync.config.compose import compose_eval, compose_train, differences, to_yaml
from rlsync.errors import ConfigError

MIXED = ["data=mixture", "+data@data.parts.sums=chain_sum", "+data@data.parts.words=gsm8k"]
EXTRA = "+data@eval.sets.extra=chain_sum"


def test_a_mixture_composes() -> None:
    data = compose_train([*MIXED, "data.parts.words.weight=3"]).data
    assert data.weights == {"sums": 1.0, "words": 3.0}
    assert data.parts["sums"].template == "{expression}="
    assert data.parts["words"].answer_parser == "gsm8k"


def test_sets_compose() -> None:
    config = compose_train([EXTRA, "eval.sets.extra.task_args={max_digits:2}", "eval.samples=8", "eval.k=[1,8]"])
    assert config.eval.chosen == ["held_out", "extra"]
    assert config.eval.sets["extra"].task_args["max_digits"] == 2
    assert compose_train([EXTRA, "eval.only=[extra]"]).eval.chosen == ["extra"]
    assert compose_train([]).eval.chosen == ["held_out"]


def test_a_set_may_hold_out_all_it_has() -> None:
    whole = ["+data@eval.sets.bench=file", "eval.sets.bench.path=x.jsonl", "eval.sets.bench.held_out_percent=100"]
    assert compose_train(whole).eval.sets["bench"].held_out_percent == 100
    with pytest.raises(ConfigError, match="less than 100, so that training has problems left"):
        compose_train(["data=file", "data.path=x.jsonl", "data.held_out_percent=100"])


def test_an_evaluation_has_a_run_of_its_own() -> None:
    recipe = "recipe=grpo_arithmetic_tiny_cpu"
    assert compose_eval([recipe]).run.name == "grpo_arithmetic_tiny_cpu_eval"
    assert compose_eval([recipe, "run.name=x"]).run.name == "x"
    assert compose_eval([]).run.name == "eval"
    assert compose_eval([recipe]).eval.problems == compose_train([recipe]).eval.problems


def test_what_a_saved_configuration_has_otherwise(tmp_path) -> None:
    saved, file = compose_train(["recipe=grpo_arithmetic_tiny_cpu"]), tmp_path / "config.yaml"
    file.write_text(to_yaml(saved))
    assert differences(file, saved) == []
    saved.trainer.lr, saved.run.dir = 0.5, "elsewhere"
    (only,) = map(str, differences(file, saved))
    assert only.startswith("trainer.lr: ")
    assert only.endswith(" -> 0.5")


@pytest.mark.parametrize("text", [None, "", "words", "- 1", "seed: [", "a: 1", "\0", "\xff"])
def test_a_saved_configuration_that_is_none(tmp_path, text) -> None:
    file = tmp_path / "config.yaml"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=rf"run\.resume=true: {file} cannot be read.*another run\.dir") as told:
        differences(file, compose_train([]))
    assert "\n" not in told.value.message


@pytest.mark.parametrize("compose", [compose_eval, compose_train])
def test_a_saved_model_replaces_the_recipe_s(compose) -> None:
    recipe = "recipe=grpo_arithmetic_tiny_cpu"
    model = compose([recipe, "model.path=folder"]).model
    assert (model.source, model.path) == ("huggingface", "folder")
    assert compose([recipe]).model.source == "tiny"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=mixture"], r"data\.parts is empty.*\+data@data\.parts\.sums=chain_sum"),
        ([*MIXED, "data.parts.sums.weight=0"], r"data\.parts\.sums\.weight=0\.0: must be a positive number"),
        ([*MIXED, "data.parts.sums.weight=-1"], r"data\.parts\.sums\.weight=-1\.0"),
        ([*MIXED, "data.parts.sums.weight=inf"], r"data\.parts\.sums\.weight=inf"),
        ([*MIXED, "data.chat=true"], r"data\.chat=true has no effect with .*source=mixture.*data\.parts\.NAME\.chat"),
        ([*MIXED, "data.parts.words.path="], r"data\.parts\.words\.path is empty"),
        ([*MIXED, "data.parts.words.max_prompt_tokens=2000"], r"data\.parts\.words\.max_prompt_tokens=2000 .*1024"),
        (["data=mixture", "+data@data.parts.a=mixture"], r"data\.parts\.a\.source=mixture: a part .*cannot be"),
        (["+data@data.parts.a=chain_sum"], r"data\.parts is set, but data\.source=reasoning_gym does not read it"),
        (["data.eval_split=test"], r"data\.eval_split=test has no effect .* data\.source=hub"),
        (["data.eval_path=x.jsonl"], r"data\.eval_path=x\.jsonl has no effect with data\.source=reasoning_gym"),
        (["data=gsm8k", "data.eval_path=x.jsonl"], r"data\.eval_split=test and data\.eval_path=x\.jsonl both name"),
        (["data.template=Compute"], r"data\.template='Compute' has no \{field\}"),
        (["data.template='{{question}}'"], r"data\.template='\{\{question\}\}' has no \{field\}"),
        (["data.template='{question'"], r"data\.template='\{question': expected '\}'"),
        ([*MIXED, "data.parts.words.template=x"], r"data\.parts\.words\.template='x' has no \{field\}"),
        (["data.warm_start_percent=-1"], r"data\.warm_start_percent=-1"),
        (["data=gsm8k", "data.answer_parser=boxes"], r"data\.answer_parser.*boxes.*none, gsm8k, boxed"),
        (["eval.samples=-1"], r"eval\.samples=-1: must not be negative"),
        (["eval.k=[]"], r"eval\.k=\[\].*eval\.k=\[1,8\]"),
        (["eval.k=[0]"], r"eval\.k=\[0\]"),
        (["eval.samples=4", "eval.k=[1,8]"], r"eval\.k=\[1, 8\] with eval\.samples=4: pass@8 needs at least 8"),
        (["eval.k=[2]"], r"eval\.k=\[2\] with eval\.samples=0"),
        ([EXTRA, "eval.only=[extr]"], r"no set is called 'extr'; the sets are held_out, extra\. Did you mean extra\?"),
        (["+data@eval.sets.held_out=chain_sum"], r"eval\.sets\.held_out: a name must .*must not be held_out"),
        (["+data@eval.sets.x=file"], r"eval\.sets\.x\.path is empty"),
        ([EXTRA, "eval.sets.extra.max_prompt_tokens=2000"], r"eval\.sets\.extra\.max_prompt_tokens=2000 .*1024"),
        ([EXTRA, "eval.sets.extra.pth=x"], r"eval\.sets\.extra\.pth.*not in .*DataConfig"),
        (["eval.sets.x.path=y"], r"eval\.sets\.x: .*does not exist yet; .*with \+data@eval\.sets\.NAME=OPTION"),
        (["+eval.sets.x.path=y"], r"does not exist yet"),
        (["data@eval.sets.x=chain_sum"], r"data@eval\.sets\.x.*write \+ in front"),
        (["+data@eval.sets.x=chain_sums"], r"chain_sums: no such option.*chain_sum"),
        (["+data@evl.sets.x=chain_sum"], r"unknown key 'evl\.sets\.x'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_train(overrides)


def test_nothing_to_evaluate() -> None:
    with pytest.raises(ConfigError, match=r"eval\.problems=0 leaves nothing to evaluate"):
        compose_eval(["eval.problems=0"])
    assert compose_train(["eval.problems=0"]).eval.problems == 0
