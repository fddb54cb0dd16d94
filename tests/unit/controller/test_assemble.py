"""What a run prepares before actors start: evaluation sets, training problems, and the scorer of each set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Qwen3Config

from rlsync.config.cluster import Device
from rlsync.config.compose import compose_train
from rlsync.controller import assemble as module
from rlsync.controller.assemble import Prepared, model_use, prepare
from rlsync.controller.assemble import model_folder as make_or_find
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.open_source import open_source
from rlsync.data.prompts import PromptStream
from rlsync.errors import ConfigError, DataError
from rlsync.models.checks import check_head_dim


@pytest.fixture(autouse=True)
def tokenizer_instead_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_char_tokenizer(tmp_path / "model", "abcdefghijklmnopqrstuvwxyz0123456789+-= ")
    Qwen3Config(architectures=["Qwen3ForCausalLM"], vocab_size=60).save_pretrained(tmp_path / "model")
    monkeypatch.setattr(module, "model_folder", lambda *_: str(tmp_path / "model"))


def write(path: Path, name: str, rows: range) -> str:
    lines = [json.dumps({"prompt": f"{name} {'x' * (i % 7)} {i}", "answer": str(i)}) for i in rows]
    path.write_text("\n".join(lines))
    return str(path)


def prepared(*overrides: str, trains: bool = True) -> tuple[Prepared, list[str]]:
    said: list[str] = []
    return prepare(compose_train(list(overrides)), said.append, trains=trains), said


def test_the_held_out_split_is_the_default_set() -> None:
    made, said = prepared("trainer.steps=2")
    (each,) = made.sets
    assert each.name == "held_out"
    assert not {p.id for p in each.problems} & {p.id for p in made.training}
    assert (len(made.training), said) == (32, [])
    assert prepared("eval.problems=0")[0].sets == []


def test_an_evaluation_draws_no_training_problems() -> None:
    assert prepared(trains=False)[0].training == []


def test_training_leaves_out_what_any_set_holds(tmp_path: Path) -> None:
    rows, bench = write(tmp_path / "rows.jsonl", "p", range(200)), write(tmp_path / "bench.jsonl", "p", range(50))
    common = ("data=file", f"data.path={rows}", "trainer.steps=100")
    sets = ("+data@eval.sets.bench=file", f"eval.sets.bench.path={bench}", "eval.sets.bench.held_out_percent=100")
    made, said = prepared(*common, *sets)
    assert [each.name for each in made.sets] == ["held_out", "bench"]
    assert len(made.sets[1].problems) == 50
    assert not {p.id for each in made.sets for p in each.problems} & {p.id for p in made.training}
    assert any("problems that are in an evaluation set" in line for line in said)
    # Control: without the set they are trained on.
    alone = prepared(*common)[0]
    assert {p.id for p in made.sets[1].problems} & {p.id for p in alone.training}


def test_a_longer_run_begins_as_a_shorter_one(tmp_path: Path) -> None:
    """If problems are left out, others take their place, up to the source's last one."""
    rows = write(tmp_path / "rows.jsonl", "p", range(400))
    common = ("data=file", f"data.path={rows}", "data.held_out_percent=5", "data.max_prompt_tokens=9")
    for source in (common, ("data.held_out_percent=5",)):
        short, longer = (prepared(*source, f"trainer.steps={steps}")[0].training for steps in (2, 7))
        assert len(short) >= 2 * 16
        assert longer[: len(short)] == short
        assert len(longer) >= 7 * 16
    every, said = prepared(*common, "trainer.steps=100")
    assert 7 * 16 <= len(every.training) < 400
    assert sum(line.startswith("training: left out") for line in said) == 1
    other = prepared(*common, "trainer.steps=2", "seed=1")[0].training  # the control
    assert other[:20] != longer[:20]


def test_so_does_a_mixture_whose_parts_lose_many_or_few(tmp_path: Path) -> None:
    """Others also take their place if all of a run's first problems are too long."""
    parts = ["data=mixture", "data.held_out_percent=5"]
    for name, fitting in (("a", 27), ("b", 1)):  # of 30
        sizes = [0 if i % 30 < fitting else 9 for i in range(4000)]
        lines = [json.dumps({"prompt": f"{name}{'x' * size} {i}", "answer": "1"}) for i, size in enumerate(sizes)]
        (tmp_path / name).with_suffix(".jsonl").write_text("\n".join(lines))
        parts += [f"+data@data.parts.{name}=file", f"data.parts.{name}.path={tmp_path / name}.jsonl"]
        parts += [f"data.parts.{name}.max_prompt_tokens=9"]
    runs = []
    for steps in (1, 4, 7):
        config = compose_train([*parts, f"trainer.steps={steps}"])
        stream = PromptStream(prepare(config, lambda _: None).training, 0, config.data.weights)
        runs.append([problem.id for problem in stream.next(16 * steps)])
        assert len(set(runs[-1])) == 16 * steps
    assert runs[0] == runs[1][:16]
    assert runs[1] == runs[2][:64]


def test_parts_say_what_they_leave_out(tmp_path: Path) -> None:
    parts = ["data=mixture", "trainer.steps=100"]
    for name, limit in (("a", 6), ("b", 100)):
        path = write(tmp_path / f"{name}.jsonl", name, range(100))
        parts += [f"+data@data.parts.{name}=file", f"data.parts.{name}.path={path}"]
        parts += [f"data.parts.{name}.max_prompt_tokens={limit}"]
    made, said = prepared(*parts)
    left = [line for line in said if line.startswith("training: left out")]
    assert len(left) == 1
    assert "problems of a with prompts over max_prompt_tokens" in left[0]
    assert {p.part for p in made.training} == {"a", "b"}
    with pytest.raises(DataError, match=r"data\.parts\.a\.max_prompt_tokens=2 leaves out all"):
        prepared(*parts, "data.parts.a.max_prompt_tokens=2")


def test_each_set_has_its_own_scorer(tmp_path: Path) -> None:
    """reward=task: letter for letter for a file, as a number for reasoning-gym's sums."""
    bench = write(tmp_path / "bench.jsonl", "p", range(50))
    made, _ = prepared("+data@eval.sets.bench=file", f"eval.sets.bench.path={bench}", "eval.problems=4")
    sums, rows = ((each.scorer, each.problems[:2]) for each in made.sets)
    for (scorer, problems), reward in ((sums, 1.0), (rows, 0.0)):
        scores = scorer.score(problems, [problem.answer + ".0" for problem in problems])
        assert [score.reward for score in scores] == [reward, reward]


def test_a_set_too_long_for_its_limit_is_named() -> None:
    with pytest.raises(DataError, match=r"evaluation set x: data\.max_prompt_tokens=2 leaves out all"):
        prepared("+data@eval.sets.x=chain_sum", "eval.sets.x.max_prompt_tokens=2")


def _model(folder: Path, kind: str, **values: int) -> str:
    """A Qwen3 with random weights; `kind` is CausalLM or SequenceClassification."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2}
    config = Qwen3Config(**sizes, **{"head_dim": 32, "intermediate_size": 64, **values})
    auto = AutoModelForCausalLM if kind == "CausalLM" else AutoModelForSequenceClassification
    auto.from_config(config).save_pretrained(folder)
    return str(folder)


def test_a_critic_that_cannot_go_with_the_policy_is_named_at_the_start(tmp_path: Path) -> None:
    _model(tmp_path / "model", "CausalLM", vocab_size=60)
    ppo = ("algorithm=ppo", "trainer.steps=2")
    good = _model(tmp_path / "good", "SequenceClassification", vocab_size=60, num_labels=1)
    assert prepared(*ppo, f"critic.path={good}")[0].training
    for name, message, values in (
        ("words", r"vocabulary has 59 tokens and the policy's has 60", {"vocab_size": 59}),
        ("scores", r"critic\.path=.*gives 3 scores", {"vocab_size": 60, "num_labels": 3}),
        ("leaves", r"down_proj.*1028", {"vocab_size": 60, "intermediate_size": 1028}),
    ):
        path = _model(tmp_path / name, "SequenceClassification", **{"num_labels": 1, **values})
        with pytest.raises(ConfigError, match=message):
            prepared(*ppo, f"critic.path={path}")
    with pytest.raises(ConfigError, match=r"critic\.path=/nowhere: no config\.json"):
        prepared(*ppo, "critic.path=/nowhere")


def test_a_model_that_cannot_serve_is_named_at_the_start(tmp_path: Path) -> None:
    folder = Path(_model(tmp_path / "policy", "CausalLM", vocab_size=60, max_position_embeddings=1024))
    weights = (folder / "model.safetensors").rename(tmp_path / "weights")
    with pytest.raises(
        ConfigError, match=r"model\.path=.*policy: .* a config\.json but no weights\. .*model\.safetensors"
    ):
        prepared(f"model.path={folder}", "trainer.steps=2")
    weights.rename(folder / "model.safetensors")
    assert prepared(f"model.path={folder}", "trainer.steps=2")[0].training  # the control, at the model's length
    with pytest.raises(ConfigError, match=r"max_model_len=1025: the model has 1024 positions"):
        prepared(f"model.path={folder}", "rollout.max_model_len=1025")


def test_the_tiny_model_has_a_length_too() -> None:
    config = compose_train(["rollout.max_model_len=1025"])
    with pytest.raises(ConfigError, match=r"max_model_len=1025: the model has 1024 positions"):
        make_or_find(config, open_source(config.data), model_use(config), print)


def test_a_reference_that_cannot_read_the_policys_tokens_is_named_at_the_start(tmp_path: Path) -> None:
    _model(tmp_path / "model", "CausalLM", vocab_size=60)
    kl = ("algorithm.kl_coef=0.1", "trainer.steps=2")
    good = _model(tmp_path / "good", "CausalLM", vocab_size=60)
    assert prepared(*kl, f"algorithm.kl_model={good}")[0].training
    other = _model(tmp_path / "other", "CausalLM", vocab_size=59)
    with pytest.raises(ConfigError, match=r"kl_model=.*vocabulary has 59 tokens and the policy's has 60"):
        prepared(*kl, f"algorithm.kl_model={other}")
    build_char_tokenizer(Path(good), "abc")
    with pytest.raises(ConfigError, match=r"kl_model=.*its tokenizer is not the policy's"):
        prepared(*kl, f"algorithm.kl_model={good}")
    with pytest.raises(ConfigError, match=r"algorithm\.kl_model=/nowhere: no config\.json"):
        prepared(*kl, "algorithm.kl_model=/nowhere")


def test_heads_without_a_gpu_kernel_are_named_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"model\.path: its attention heads have 80 channels.*16, 32, 64, 128, 256"):
        check_head_dim("model.path", 80, Device.cuda)
    check_head_dim("model.path", 128, Device.cuda)
    check_head_dim("model.path", 80, Device.cpu)  # the CPU's kernels take any
