"""Native attention over packs: what the model calls, and where it keeps SDPA. The op itself runs only on GPUs."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from rlsync.config.kernels import KernelMode
from rlsync.config.model import ComputeDtype
from rlsync.models.critic import Critic
from rlsync.models.load import load_critic, load_model
from rlsync.models.native_attention import NATIVE_ATTENTION, use_flash
from rlsync.models.policy import Policy
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.packing import pack_samples
from rlsync.verify.cases import Cell, Family, build_model

CPU, GPU = torch.device("cpu"), torch.device("cuda")
NATIVE = KernelMode.native
LENGTHS = (5, 150, 33)


def _flash(q, k, v, bounds, key_bounds, most, most_keys, dropout, causal, debug, *, scale, window_size_left, **rest):
    """Plain attention with the op's arguments; q [T, Hq, D], k and v [T, Hkv, D]."""
    assert (dropout, causal, debug, rest) == (0.0, True, False, {"window_size_right": 0})
    assert bounds.dtype is torch.int32
    assert key_bounds is bounds
    assert most == most_keys == int(bounds.diff().max())
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    at = torch.arange(q.shape[0])
    sequence = torch.bucketize(at, bounds[1:], right=True)
    far = at[:, None] - at
    seen = (sequence[:, None] == sequence) & (far >= 0)
    if window_size_left >= 0:
        seen &= far <= window_size_left
    scores = torch.einsum("thd,shd->hts", q, k) * scale
    out = torch.einsum("hts,shd->thd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)
    return out, None, None, None, None


@pytest.fixture(autouse=True)
def _a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.ops.aten, "_flash_attention_forward", _flash)


@pytest.fixture(params=list(Family))
def path(request, tmp_path):
    return str(build_model(Cell(request.param, ComputeDtype.float32, 1), tmp_path))


def _pack():
    samples = []
    for length in LENGTHS:
        rollout = Rollout(
            tokens=(torch.arange(length) * 37 + length) % 259, sampled=torch.arange(length) > 1, seed=1,
            logprobs=torch.zeros(length), weight_version=torch.zeros(length, dtype=torch.int32),
            finish_reason=FinishReason.stop,
        )  # fmt: skip
        samples.append(TrainSample(rollout=rollout, advantage=torch.ones(rollout.tokens.numel())))
    return pack_samples(samples, range(len(LENGTHS)))


def _policy(path, device):
    model = load_model(path, NATIVE)
    use_flash(model, device, torch.bfloat16)
    return Policy(model, mode=NATIVE, leaves=8, dtype=torch.float32, temperature=0.9).train()


def _critic(path, device):
    model = load_critic(path, NATIVE)
    use_flash(model, device, torch.bfloat16)
    torch.nn.init.ones_(model.score.weight)
    return Critic(model, mode=NATIVE, leaves=8, dtype=torch.float32).train()


def test_a_policy_attends_by_it_as_by_sdpa(path):
    pack = _pack()
    outputs, grads = [], []
    for device in (GPU, CPU):
        policy = _policy(path, device)
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        output = policy(pack).logprobs
        output.sum().backward()
        outputs.append(output.detach())
        grads.append([p.grad for p in policy.parameters()])
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    for packed, dense in zip(*grads, strict=True):
        torch.testing.assert_close(packed, dense, rtol=1e-3, atol=1e-3 * float(dense.abs().max()))
    total = sum(LENGTHS)
    wrong = replace(pack, starts=torch.tensor([0, total]), longest=total)  # the control: one sequence
    assert not torch.allclose(_policy(path, GPU)(wrong).logprobs, outputs[1], rtol=1e-2, atol=1e-2)


def test_a_critic_attends_by_it_as_by_sdpa(path):
    pack = _pack()
    with torch.no_grad():
        torch.testing.assert_close(_critic(path, GPU)(pack), _critic(path, CPU)(pack), rtol=1e-3, atol=1e-3)


def _attention(model, device=GPU, dtype=torch.bfloat16):
    use_flash(model, device, dtype)
    return model.config._attn_implementation


def test_what_flash_cannot_run_stays_sdpa(path, monkeypatch):
    assert _attention(load_model(path, NATIVE)) == NATIVE_ATTENTION  # the control
    assert _attention(load_model(path, NATIVE), device=CPU) == "sdpa"
    assert _attention(load_model(path, NATIVE), dtype=torch.float32) == "sdpa"
    dropping = load_model(path, NATIVE)
    dropping.config.attention_dropout = 0.1
    assert _attention(dropping) == "sdpa"
    wide = load_model(path, NATIVE)
    wide.config.head_dim = 512
    assert _attention(wide) == "sdpa"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert _attention(load_model(path, NATIVE)) == "sdpa"


def test_other_families_stay_sdpa():
    config = GPT2Config(vocab_size=8, n_positions=8, n_embd=16, n_layer=1, n_head=2)
    assert _attention(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")) == "sdpa"
