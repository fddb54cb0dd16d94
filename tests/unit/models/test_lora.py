"""Adapters: the forward pass uses the merged weight, the gradient is that of its formula, and PEFT reads the file."""

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

from rlsync.checkpoint.export import export_adapters
from rlsync.config.kernels import KernelMode
from rlsync.config.lora import LoraConfig
from rlsync.config.model import ComputeDtype
from rlsync.errors import ConfigError
from rlsync.kernels import ops
from rlsync.models.install import InvariantLinear
from rlsync.models.lora import LoraLinear, add_lora, lora_layers, merged_rows
from rlsync.models.policy import Policy
from rlsync.verify.cases import Cell, Family, build_model


def _layer(dtype=torch.float32, rank=4):
    torch.manual_seed(0)
    model = nn.ModuleDict({"q_proj": nn.Linear(32, 24, bias=False), "other": nn.Linear(32, 24)}).to(dtype)
    model["q_proj"].__class__ = InvariantLinear
    add_lora(model, LoraConfig(rank=rank, alpha=8.0), seed=3)
    layer = model["q_proj"]
    with torch.no_grad():
        layer.lora_b.normal_()
    return model, layer


def test_only_targets_get_adapters_and_only_those_are_trained():
    model, layer = _layer()
    assert isinstance(layer, LoraLinear)
    assert isinstance(layer, InvariantLinear)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"q_proj.lora_a", "q_proj.lora_b"}
    again, _ = _layer()
    assert torch.equal(layer.lora_a, again["q_proj"].lora_a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_forward_is_that_of_the_merged_weight(dtype):
    _, layer = _layer()
    base, x = layer.weight.detach().clone(), torch.randn(7, 32).to(dtype)
    merged = merged_rows(base, layer.lora_a, layer.lora_b, layer.lora_scale).to(dtype)
    unmerged = ops.linear(x, base.to(dtype)) + layer.lora_scale * ops.linear(
        ops.linear(x, layer.lora_a.to(dtype)), layer.lora_b.to(dtype)
    )
    layer.weight.data = merged
    layer.to(dtype)
    assert torch.equal(layer(x), ops.linear(x, merged))
    assert not torch.equal(layer(x), unmerged)  # the control: the usual formula


def test_a_merged_row_does_not_know_its_shard():
    _, layer = _layer()
    base, a, b = layer.weight.detach(), layer.lora_a.detach(), layer.lora_b.detach()
    whole = merged_rows(base, a, b, 2.0)
    assert torch.equal(whole, torch.cat([merged_rows(base[r], a, b[r], 2.0) for r in (slice(0, 5), slice(5, 24))]))
    assert not torch.equal(whole, merged_rows(base, a, b.flip(0), 2.0))  # the control


def test_gradients_are_those_of_the_formula():
    _, layer = _layer()
    x, grad = torch.randn(9, 32), torch.randn(9, 24)
    wide = [t.detach().double().requires_grad_() for t in (layer.lora_a, layer.lora_b)]
    expected = x.double() @ (layer.weight.detach().double() + layer.lora_scale * wide[1] @ wide[0]).t()
    layer.weight.data = merged_rows(layer.weight, layer.lora_a, layer.lora_b, layer.lora_scale).detach()
    (layer(x) * grad).sum().backward()
    for mine, right in zip(
        (layer.lora_a.grad, layer.lora_b.grad), torch.autograd.grad(expected, wide, grad.double()), strict=True
    ):
        torch.testing.assert_close(mine.double(), right, rtol=1e-5, atol=1e-5)
    assert layer.weight.grad is None


def test_peft_reads_the_adapters(tmp_path):
    path = build_model(Cell(Family.llama, ComputeDtype.float32, 1), tmp_path)
    config = LoraConfig(rank=4, alpha=8.0, targets=["q_proj", "down_proj"])
    policy = Policy(
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        mode=KernelMode.native, leaves=8, dtype=torch.float32, temperature=1.0,
    )  # fmt: skip
    add_lora(policy.model, config, seed=0)
    adapters = {}
    with torch.no_grad():
        for name, layer in lora_layers(policy.model):
            layer.lora_b.normal_(std=0.1)
            layer.weight.copy_(merged_rows(layer.weight, layer.lora_a, layer.lora_b, layer.lora_scale))
            adapters |= {
                f"base_model.model.{name}.lora_{k}.weight": p.detach()
                for k, p in (("A", layer.lora_a), ("B", layer.lora_b))
            }
    export_adapters(adapters, config, str(path), tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    ids = torch.arange(12)[None]
    stock = base(ids).logits
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter")(ids).logits
    torch.testing.assert_close(policy.model(ids).logits, theirs, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(stock, theirs, rtol=1e-3, atol=1e-3)  # the control


@pytest.mark.parametrize(
    ("values", "message"), [({"rank": -1}, "rank=-1"), ({"targets": ["qproj"]}, "qproj"), ({"alpha": 0.0}, "alpha")]
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        LoraConfig(**values)
