"""The critic: its values, the models that it starts from, and that a saved critic is the same."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from rlsync.checkpoint.export import export_model
from rlsync.config.kernels import KernelMode
from rlsync.config.model import ComputeDtype
from rlsync.data.char_tokenizer import build_char_tokenizer
from rlsync.errors import ConfigError
from rlsync.models.critic import Critic
from rlsync.models.load import load_critic, load_model
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.fsdp import MODEL_PREFIX
from rlsync.trainer.packing import pack_samples, unpack_items
from rlsync.verify.cases import Cell, Family, build_model


def _samples(lengths=(5, 40, 9)):
    samples = []
    for length in lengths:
        rollout = Rollout(
            tokens=(torch.arange(length) * 37 + length) % 259, sampled=torch.arange(length) > 1, seed=1,
            logprobs=torch.zeros(length), weight_version=torch.zeros(length, dtype=torch.int32),
            finish_reason=FinishReason.stop,
        )  # fmt: skip
        samples.append(TrainSample(rollout=rollout, advantage=torch.ones(rollout.tokens.numel())))
    return samples


def _critic(path, mode=KernelMode.invariant, dtype=torch.float32):
    return Critic(load_critic(str(path), mode), mode=mode, leaves=8, dtype=dtype).to(dtype)


def _with_a_head(critic):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight = critic.model.score.weight
        weight.copy_(torch.randn(weight.shape, generator=generator))
    return critic


def _save(critic, path, folder, dtype):
    state = {name.removeprefix(MODEL_PREFIX): p.detach().to(dtype) for name, p in critic.named_parameters()}
    export_model(state, critic.model.config, dtype, str(path), folder)


@pytest.fixture(params=list(Family))
def path(request, tmp_path):
    folder = build_model(Cell(request.param, ComputeDtype.float32, 1), tmp_path)
    build_char_tokenizer(folder / "tokenizer", "0123456789")
    for file in (folder / "tokenizer").iterdir():
        file.rename(folder / file.name)
    return folder


def test_a_causal_lm_becomes_a_critic_of_value_zero(path):
    critic = _critic(path)
    pack = pack_samples(_samples(), [0, 1, 2])
    values = critic(pack)
    assert torch.equal(values, torch.zeros_like(values))
    language = dict(load_model(str(path), KernelMode.invariant).named_parameters())
    mine = {name.removeprefix(MODEL_PREFIX): p for name, p in critic.named_parameters()}
    assert set(mine) - set(language) == {"score.weight"}
    assert all(torch.equal(mine[name], language[name]) for name in mine if name in language)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_value_does_not_know_its_pack(path, dtype):
    critic = _with_a_head(_critic(path, dtype=dtype))
    samples = _samples()
    with torch.no_grad():
        pack = pack_samples(samples, [0, 1, 2])
        together = unpack_items(pack, critic(pack))
        for i, sample in enumerate(samples):
            alone = pack_samples([sample], [i])
            assert torch.equal(unpack_items(alone, critic(alone))[i], together[i])
        assert together[0].dtype == torch.float32
        other = pack_samples([replace(samples[0], rollout=replace(samples[0].rollout, tokens=torch.arange(5)))], [0])
        assert not torch.equal(unpack_items(other, critic(other))[0], together[0])  # the control


def test_a_saved_critic_is_the_same(path, tmp_path):
    critic = _with_a_head(_critic(path, dtype=torch.bfloat16))
    _save(critic, path, tmp_path / "critic", torch.bfloat16)
    pack = pack_samples(_samples(), [0, 1, 2])
    again = _critic(tmp_path / "critic", dtype=torch.bfloat16)
    assert torch.equal(again(pack), critic(pack))
    assert not torch.equal(_critic(path, dtype=torch.bfloat16)(pack), critic(pack))  # the control: it started elsewhere


def test_stock_transformers_loads_a_saved_critic(path, tmp_path):
    """A classifier's score of a sequence is the critic's value after the sequence."""
    critic = _with_a_head(_critic(path))
    _save(critic, path, tmp_path / "critic", torch.float32)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "critic", dtype=torch.float32)
    (sample,) = _samples([12])
    value = critic(pack_samples([sample], [0]))
    stock.config.pad_token_id = None
    score = stock(sample.rollout.tokens[None, :-1]).logits[0, 0]
    torch.testing.assert_close(score, value[-1], rtol=2e-3, atol=2e-3)
    assert not torch.allclose(value[-1], value[-2], rtol=2e-3, atol=2e-3)  # the control


def test_native_values_are_near(path):
    pack = pack_samples(_samples(), [0, 1, 2])
    exact, native = (_with_a_head(_critic(path, mode))(pack) for mode in (KernelMode.invariant, KernelMode.native))
    torch.testing.assert_close(exact, native, rtol=2e-3, atol=2e-3)
    assert not torch.equal(exact, native)  # the control: stock kernels round elsewhere


def test_what_is_no_critic_is_refused(path, tmp_path):
    critic = _critic(path)
    folder = tmp_path / "critic"
    _save(critic, path, folder, torch.float32)
    with pytest.raises(ConfigError, match="SequenceClassification is not supported"):
        load_model(str(folder), KernelMode.invariant)  # a critic is not a policy
    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "layers.0.mlp" not in k}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ConfigError, match=r"critic\.path=.*missing.*layers\.0\.mlp"):
        load_critic(str(folder), KernelMode.invariant)
    config = json.loads((folder / "config.json").read_text())
    labels = {"id2label": {str(i): str(i) for i in range(3)}, "label2id": {str(i): i for i in range(3)}}
    (folder / "config.json").write_text(json.dumps(config | labels))
    with pytest.raises(ConfigError, match=r"critic\.path=.*3 scores"):
        load_critic(str(folder), KernelMode.invariant)
    with pytest.raises(ConfigError, match=r"critic\.path=.*no config\.json"):
        load_critic(str(tmp_path / "nowhere"), KernelMode.invariant)
