"""A model with missing weights, or one that vLLM would refuse, is refused by name before anything starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlsync.cli import main
from rlsync.config.compose import compose_train
from rlsync.config.model import ComputeDtype
from rlsync.controller.assemble import _check_companions, model_use
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.data.text import load_tokenizer
from rlsync.errors import ConfigError
from rlsync.models import weight_files, weights
from rlsync.models.checks import check_model, check_reward_models
from rlsync.models.load import load_critic, load_model
from rlsync.verify.cases import Cell, Family, build_model

DOWN = "model.layers.1.mlp.down_proj.weight"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
State = dict[str, torch.Tensor]


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Family], Path]:
    def build(family: Family) -> Path:
        return build_model(Cell(family, ComputeDtype.float32, 1), tmp_path)

    return build


def checked(folder: Path, *overrides: str) -> None:
    config = compose_train([f"model.path={folder}", "rollout.tp=1", *overrides])
    check_model(str(folder), model_use(config))


def rewrite(folder: Path, change: Callable[[State], State]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def configure(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def without(name: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if key != name}


def renamed(old: str, new: str) -> Callable[[State], State]:
    return lambda state: {new + key.removeprefix(old): value for key, value in state.items()}


@pytest.mark.parametrize("family", list(Family))
def test_a_whole_model_is_accepted(make, family):
    checked(make(family))


@pytest.mark.parametrize(
    ("family", "change", "told"),
    [
        (Family.qwen3, without(DOWN), rf"1 weights are missing \({DOWN}\)"),
        (Family.llama, without(HEAD), rf"1 weights are missing \({HEAD}\)"),
        (Family.qwen2, without("model.layers.0.self_attn.q_proj.bias"), r"missing \(model\.layers\.0.*q_proj\.bias"),
        (Family.qwen3, without(EMBEDDING), rf"missing \({HEAD}, {EMBEDDING}\)"),
        (Family.qwen3, lambda s: {HEAD: s.pop(EMBEDDING), **s}, rf"missing \({EMBEDDING}\)"),
        (Family.qwen3, renamed("", "_orig_mod."), r"not belong to the model \(_orig_mod\..*the prefix '_orig_mod\.'"),
        (Family.llama, renamed("", "module."), r"the prefix 'module\.'"),
        (Family.qwen3, renamed("model.", ""), r"missing \(model\..*lack the prefix 'model\.'"),
        (Family.qwen3, lambda s: s | {"model.extra": torch.ones(2)}, r"not belong to the model \(model\.extra\)"),
        (Family.qwen3, lambda s: s | {DOWN: s[DOWN][:, 1:].clone()}, rf"{DOWN} has shape \[64, 255\], .* \[64, 256\]"),
        (Family.qwen3, lambda s: s | {DOWN: s[DOWN].to(torch.float8_e4m3fn)}, rf"quantised \({DOWN} is F8_E4M3"),
        (Family.qwen3, lambda s: s | {HEAD: s[EMBEDDING] + 1}, rf"tie_word_embeddings=true, but {HEAD} differs"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(make, family, change, told):
    folder = make(family)
    rewrite(folder, change)
    with pytest.raises(ConfigError, match=rf"model\.path={folder}: .*{told}"):
        checked(folder)


def test_they_are_with_native_kernels_too(make):
    folder = make(Family.qwen3)
    checked(folder, "kernels=native")
    rewrite(folder, without(DOWN))
    with pytest.raises(ConfigError, match=rf"missing \({DOWN}\)"):
        checked(folder, "kernels=native")


@pytest.mark.parametrize("verb", ["train", "eval"])
def test_both_commands_refuse_them_before_anything_starts(make, tmp_path, verb, capsys):
    folder = make(Family.qwen3)
    rewrite(folder, without(DOWN))
    run = tmp_path / "run"
    capsys.readouterr()
    code = main([verb, "recipe=grpo_arithmetic_tiny_cpu", f"model.path={folder}", f"run.dir={run}"])
    shown = capsys.readouterr().err
    assert code == 2
    assert shown.count("\n") == 1
    assert f"missing ({DOWN})" in shown
    assert not run.exists()
    assert not ray.is_initialized()


def test_what_both_sides_compute_or_tie_may_be_there(make):
    folder = make(Family.qwen3)
    inv_freq = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(16) for i in range(2)}
    rewrite(folder, lambda state: state | inv_freq | {HEAD: state[EMBEDDING].clone()})
    checked(folder)


def test_shards_and_pickled_weights_are_read_too(make):
    sharded, pickled = make(Family.qwen3), make(Family.llama)
    AutoModelForCausalLM.from_pretrained(sharded).save_pretrained(sharded, max_shard_size="100KB")
    (sharded / "model.safetensors").unlink(missing_ok=True)
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    checked(sharded)
    next(sharded.glob("model-00002*")).unlink()
    with pytest.raises(ConfigError, match=r"lists files that are missing: model-00002"):
        checked(sharded)
    state = load_file(pickled / "model.safetensors")
    (pickled / "model.safetensors").unlink()
    torch.save(state, pickled / "pytorch_model.bin")
    checked(pickled)
    torch.save(without(DOWN)(state), pickled / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=rf"missing \({DOWN}\)"):
        checked(pickled)
    torch.save(state | {"code": print}, pickled / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin cannot be read as weights"):
        checked(pickled)


def test_files_that_are_no_whole_model_are_named(make):
    folder = make(Family.qwen3)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "older.safetensors").write_bytes(whole)
    with pytest.raises(ConfigError, match=r"besides model\.safetensors the folder has older\.safetensors"):
        checked(folder)
    (folder / "older.safetensors").unlink()
    for size in (0, 5, len(whole) // 2):
        (folder / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(ConfigError, match=r"model\.safetensors cannot be read as weights"):
            checked(folder)
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"only weights\.safetensors\. It needs model\.safetensors"):
        checked(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"a PEFT adapter"):
        checked(folder)


def test_the_hub_s_headers_are_enough(make, monkeypatch):
    """Only headers are downloaded, from this fake of the hub."""

    class Metadata:
        def __init__(self, state):
            self.files_metadata = {"model.safetensors": self}
            self.tensors = {name: self.Tensor(t) for name, t in state.items()}

        class Tensor:
            def __init__(self, t):
                self.shape, self.dtype = list(t.shape), "F32"

    def nothing_cached(*_, **__):
        raise FileNotFoundError

    folder = make(Family.qwen3)
    state = load_file(folder / "model.safetensors")
    config = compose_train([f"model.path={folder}"])
    model = load_model(str(folder), config.kernels.mode).config
    monkeypatch.setattr(weight_files, "snapshot_download", nothing_cached)
    check = weights.check_weights
    monkeypatch.setattr(weight_files, "get_safetensors_metadata", lambda *_, **__: Metadata(state))
    check("owner/name", model, AutoModelForCausalLM, field="model.path", served=True)
    state.pop(DOWN)
    with pytest.raises(ConfigError, match=rf"model\.path=owner/name: .*missing \({DOWN}\)"):
        check("owner/name", model, AutoModelForCausalLM, field="model.path", served=True)


@pytest.fixture
def policy(make) -> Path:
    folder = make(Family.llama)
    build_char_tokenizer(folder / "tokenizer", "0123456789")
    return folder


def companions(policy: Path, *overrides: str) -> None:
    config = compose_train([f"model.path={policy}", *overrides])
    _check_companions(config, str(policy), load_tokenizer(str(policy / "tokenizer")), model_use(config))


def test_the_reference_s_weights_are_checked(make, policy):
    reference = make(Family.qwen3)
    kl = (f"algorithm.kl_model={reference}", "algorithm.kl_coef=0.1")
    companions(policy, *kl)
    rewrite(reference, without(DOWN))
    with pytest.raises(ConfigError, match=rf"algorithm\.kl_model=.*missing \({DOWN}\)"):
        companions(policy, *kl)


def classifier(folder: Path, source: Path) -> Path:
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).save_pretrained(folder)
    build_char_tokenizer(folder, "0123456789")
    return folder


def test_the_critic_s_weights_are_checked(policy, make, tmp_path):
    for start in (make(Family.qwen3), classifier(tmp_path / "critic", policy)):
        ppo = ("algorithm=ppo", f"critic.path={start}")
        companions(policy, *ppo)  # a language model gets a new value head, and its own head is not read
        rewrite(start, without(DOWN))
        with pytest.raises(ConfigError, match=rf"critic\.path=.*missing \({DOWN}\)"):
            companions(policy, *ppo)
    start = classifier(tmp_path / "headless", policy)
    rewrite(start, without("score.weight"))
    with pytest.raises(ConfigError, match=r"critic\.path=.*missing \(score\.weight\)"):
        companions(policy, "algorithm=ppo", f"critic.path={start}")


def test_the_reward_model_s_weights_are_checked(policy, tmp_path):
    good = classifier(tmp_path / "good", policy)
    check_reward_models(compose_train(["reward=model", f"reward.model_path={good}"]).reward)
    build_char_tokenizer(good, "".join(map(chr, range(0x4E00, 0x4F01))))
    with pytest.raises(ConfigError, match=r"reward\.model_path=.*token ids up to 259, but the embedding ends at 258"):
        check_reward_models(compose_train(["reward=model", f"reward.model_path={good}"]).reward)
    build_char_tokenizer(good, "0123456789")
    part = ["+reward@reward.parts.judge=model", f"reward.parts.judge.model_path={policy}"]
    with pytest.raises(ConfigError, match=r"reward\.parts\.judge\.model_path=.*missing \(score\.weight\)"):
        check_reward_models(compose_train(part).reward)  # a language model: its score would be random
    rewrite(good, without(DOWN))
    with pytest.raises(ConfigError, match=rf"reward\.model_path=.*missing \({DOWN}\)"):
        check_reward_models(compose_train(["reward=model", f"reward.model_path={good}"]).reward)


@pytest.mark.parametrize(
    ("family", "values", "given"),
    [
        (
            Family.qwen2,
            {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1, "layer_types": None},
            "1 of its 2",
        ),
        (
            Family.qwen3,
            {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 2, "layer_types": None},
            "0 of its 2",
        ),
        (
            Family.qwen3,
            {"use_sliding_window": True, "sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"]},
            "1 of its 2",
        ),
        (Family.llama, {"sliding_window": 32}, "0 of its 2"),
        (Family.mistral, {"layer_types": ["full_attention", "sliding_attention"]}, "1 of its 2"),
    ],
)
def test_windows_of_some_layers_are_refused(make, family, values, given):
    folder = make(family)
    checked(folder)  # the control
    configure(folder, **values)
    for mode in ("invariant", "native"):
        with pytest.raises(ConfigError, match=rf"model\.path: config\.json gives {given} layers a sliding window"):
            checked(folder, f"kernels={mode}")


def test_windows_of_all_layers_are_served(make):
    folder = make(Family.qwen3)
    settings = {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 0}
    configure(folder, **settings, layer_types=["sliding_attention"] * 2)
    checked(folder)


def test_a_cache_without_room_for_one_sequence_is_refused(make):
    """2 layers of 2 heads of 32 channels in bfloat16 take 512 bytes for a token, and 1 MiB for 64 blocks of 32 tokens.

    One of the blocks is reserved by vLLM.
    """
    folder = make(Family.qwen3)
    length = ("rollout.max_model_len=2016", "rollout.kv_cache_mib=1")
    checked(folder, *length)
    with pytest.raises(ConfigError, match=r"kv_cache_mib=1: a sequence of rollout\.max_model_len=2017 .* 2 MiB"):
        checked(folder, "rollout.max_model_len=2017", "rollout.kv_cache_mib=1")
    with pytest.raises(ConfigError, match=r"kv_cache_mib=1: a sequence of rollout\.max_model_len=2016 .* 2 MiB"):
        checked(folder, *length, "model.dtype=float32")
    with pytest.raises(ConfigError, match=r"kv_cache_mib=99999999: this machine has \d+ MiB of free memory"):
        checked(folder, "rollout.kv_cache_mib=99999999")


@pytest.mark.parametrize("kernels", [["kernels.row_parallel=gather"], ["kernels=native"]])
def test_a_tp_that_the_model_does_not_have_is_refused(make, kernels):
    folder = make(Family.qwen3)
    with pytest.raises(ConfigError, match=r"rollout\.tp=3 does not suit a model with 4 attention heads"):
        checked(folder, *kernels, "rollout.tp=3")


@pytest.mark.parametrize("pad", [-1, 259, 100_000])
def test_a_padding_token_outside_the_vocabulary_is_dropped(make, pad):
    """Nothing is padded, and with such an id the embedding would fail or leave its last row untrained."""
    folder = make(Family.qwen3)
    configure(folder, pad_token_id=pad)
    mode = compose_train([]).kernels.mode
    checked(folder)
    for model in (load_model(str(folder), mode), load_critic(str(folder), mode)):
        assert model.config.pad_token_id is None
        assert model.base_model.embed_tokens.padding_idx is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"auto_map": {"AutoConfig": "code.C"}, "model_type": "mine"}, "custom code|trust_remote_code|Unrecognized"),
        ({"model_type": None}, "config\\.json cannot be read"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"transformers_weights": "other.safetensors"}, r"names other\.safetensors as transformers_weights"),
        ({"num_attention_heads": 0}, "config\\.json"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "rope_type=yarn"),
    ],
)
def test_a_config_that_makes_no_model_is_named(make, values, told):
    folder = make(Family.qwen3)
    configure(folder, **values)
    with pytest.raises(ConfigError, match=told) as raised:
        checked(folder)
    assert "\n" not in raised.value.message
