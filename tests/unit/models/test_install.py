"""Ops in Hugging Face models of every family: results close to the stock forward pass, and no stock op is left."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, Qwen2Config, Qwen3Config

from rlsync.config.kernels import KernelMode
from rlsync.config.model import ComputeDtype
from rlsync.errors import ConfigError
from rlsync.models.install import (
    InvariantLinear,
    InvariantRowParallelLinear,
    check_supported,
    head_dim,
    row_parallel_names,
)
from rlsync.models.load import load_config
from rlsync.models.policy import Policy
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.packing import pack_samples
from rlsync.verify.cases import Cell, Family, build_model


def _pack():
    samples = []
    for length in (5, 70):
        tokens = (torch.arange(length) * 37) % 259
        rollout = Rollout(
            tokens=tokens, sampled=torch.arange(length) > 1, logprobs=torch.zeros(length),
            weight_version=torch.zeros(length, dtype=torch.int32), seed=1, finish_reason=FinishReason.stop,
        )  # fmt: skip
        samples.append(TrainSample(rollout=rollout, advantage=torch.ones(rollout.tokens.numel())))
    return pack_samples(samples, [0, 1])


def _policy(path, mode):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return Policy(model, mode=mode, leaves=8, dtype=torch.float32, temperature=0.9)


@pytest.mark.parametrize("family", list(Family))
def test_forward_and_gradient_are_near_stock(family, tmp_path):
    path = build_model(Cell(family, ComputeDtype.float32, 1), tmp_path)
    pack = _pack()
    outputs, grads = [], []
    for mode in KernelMode:
        policy = _policy(path, mode)
        output = policy(pack)
        output.logprobs[pack.mask].sum().backward()
        outputs.append(output.logprobs.detach())
        grads.append([p.grad for p in policy.parameters()])
    torch.testing.assert_close(*outputs, rtol=2e-3, atol=2e-3)
    assert not torch.equal(*outputs)  # the control: stock kernels round elsewhere
    for mine, stock in zip(*grads, strict=True):
        torch.testing.assert_close(mine, stock, rtol=2e-2, atol=2e-2 * float(stock.abs().max()))


@pytest.mark.parametrize("family", list(Family))
def test_row_parallel_layers_come_from_the_tp_plan(family, tmp_path):
    policy = _policy(build_model(Cell(family, ComputeDtype.float32, 1), tmp_path), KernelMode.invariant)
    rows = {n for n, m in policy.model.named_modules() if isinstance(m, InvariantRowParallelLinear)}
    assert rows == row_parallel_names(policy.model)
    assert {n.rpartition(".")[2] for n in rows} == {"o_proj", "down_proj"}
    linears = [m for m in policy.model.modules() if isinstance(m, torch.nn.Linear)]
    assert all(isinstance(m, InvariantLinear | InvariantRowParallelLinear) for m in linears)


def test_gradient_checkpointing_changes_no_bit(tmp_path):
    path = build_model(Cell(Family.qwen3, ComputeDtype.float32, 1), tmp_path)
    grads = []
    for checkpointing in (False, True):
        policy = _policy(path, KernelMode.invariant).train()
        if checkpointing:
            policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy(_pack()).logprobs.sum().backward()
        grads.append([p.grad for p in policy.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_an_unsupported_architecture_is_refused_by_name():
    config = GPT2Config(architectures=["GPT2LMHeadModel"])
    with pytest.raises(ConfigError, match=r"GPT2LMHeadModel.*Supported: Llama"):
        check_supported(config)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: no config\.json"):
        load_config(str(tmp_path / "nowhere"), KernelMode.invariant)


def test_head_dim_of_a_family_that_has_no_field_for_it():
    assert head_dim(Qwen2Config(hidden_size=896, num_attention_heads=14)) == 64
    assert head_dim(Qwen3Config(hidden_size=1024, num_attention_heads=16, head_dim=128)) == 128
    config = Qwen2Config(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1, intermediate_size=64,
        vocab_size=259, tie_word_embeddings=True, architectures=["Qwen2ForCausalLM"],
    )  # fmt: skip
    policy = Policy(
        AutoModelForCausalLM.from_config(config), mode=KernelMode.invariant, leaves=8, dtype=torch.float32,
        temperature=1.0,
    )  # fmt: skip
    assert policy(_pack()).logprobs.isfinite().all()
