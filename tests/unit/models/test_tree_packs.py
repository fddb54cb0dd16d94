"""A prefix tree has the log-probs, entropies, draws and values of separate samples, bit for bit, and their gradient."""

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from rlsync.config.kernels import KernelMode
from rlsync.config.model import ComputeDtype
from rlsync.models.critic import Critic
from rlsync.models.load import load_critic
from rlsync.models.policy import Policy
from rlsync.parity.monitor import compare
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.packing import pack_samples, unpack_items
from rlsync.verify.cases import Cell, Family, build_model

TEMPERATURE = 0.9
ROUNDING = 64 * 2**-24
DTYPES = [torch.float32, torch.bfloat16]
GROUP = [(0, 45, 1), (0, 45, 9), (1, 48, 4), (0, 20, 12), (9, 0, 7)]
"""For each sample after the first, which has 50 tokens: an earlier one, how many tokens they share, how many follow."""
FOREST = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50), st.integers(1, 12)), min_size=1, max_size=5)


def _samples(forest):
    sequences = [(torch.arange(50) * 37) % 251]
    for index, (parent, shared, own) in enumerate(forest):
        start = sequences[parent][:shared] if parent < len(sequences) else torch.arange(0)
        sequences.append(torch.cat((start, (torch.arange(own + 1) * 11 + index + 3) % 259)))
    return [_sample(tokens, index) for index, tokens in enumerate([*sequences, sequences[0]])]


def _sample(tokens, seed):
    n = tokens.numel()
    sampled = torch.arange(n) % 7 != 3  # with tokens of an environment in between
    rollout = Rollout(
        tokens=tokens, sampled=sampled, logprobs=torch.zeros(n), seed=seed, finish_reason=FinishReason.stop,
        weight_version=torch.where(sampled, 0, -1).int(),
    )  # fmt: skip
    return TrainSample(rollout=rollout, advantage=torch.ones(rollout.tokens.numel()))


@functools.cache
def _model_path(family, folder):
    return build_model(Cell(family, ComputeDtype.float32, 1), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@functools.cache
def _policy(family, dtype, folder):
    model = AutoModelForCausalLM.from_pretrained(_model_path(family, folder), dtype=dtype)
    return Policy(model, mode=KernelMode.invariant, leaves=8, dtype=dtype, temperature=TEMPERATURE)


def _tree(samples):
    pack = pack_samples(samples, list(range(len(samples))), share_prefixes=True)
    assert pack.paths is not None
    return pack


def _forward(policy, pack):
    """Log-probs, entropy and draws."""
    with torch.no_grad():
        output = policy(pack, redraw=True)
    return output.logprobs, output.entropy, output.draws


def _equal(policy, pack, samples):
    """Items of a pack are ordered by sample."""
    alone = [_forward(policy, pack_samples([sample], [0])) for sample in samples]
    apart = (torch.cat(parts) for parts in zip(*alone, strict=True))
    return all(torch.equal(a, b) for a, b in zip(_forward(policy, pack), apart, strict=True))


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_group_in_every_family(family, dtype, folder):
    samples = _samples(GROUP)
    assert _equal(_policy(family, dtype, folder), _tree(samples), samples)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=12)
@given(forest=FOREST)
def test_any_tree(dtype, folder, forest):
    samples = _samples(forest)
    assert _equal(_policy(Family.qwen3, dtype, folder), _tree(samples), samples)


def test_controls_other_keys_and_positions_change_bits(folder):
    samples = _samples(GROUP)
    pack, policy = _tree(samples), _policy(Family.qwen3, torch.bfloat16, folder)
    assert _equal(policy, pack, samples)
    off = replace(pack.paths, table=(pack.paths.table - 1).clamp_min(0))
    assert not _equal(policy, replace(pack, paths=off), samples)
    assert not _equal(policy, replace(pack, positions=(pack.positions - 1).clamp_min(0)), samples)
    last = replace(pack, rows=pack.rows.clone())
    last.rows[-1] -= 1
    assert not _equal(policy, last, samples)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_the_critic(dtype, folder):
    critic = Critic(
        load_critic(str(_model_path(Family.mistral, folder)), KernelMode.invariant),
        mode=KernelMode.invariant, leaves=8, dtype=dtype,
    ).to(dtype)  # fmt: skip
    samples = _samples(GROUP)
    with torch.no_grad():
        weight = critic.model.score.weight
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
        pack = _tree(samples)
        together = unpack_items(pack, critic(pack))
        for i, sample in enumerate(samples):
            alone = pack_samples([sample], [i])
            assert torch.equal(together[i], unpack_items(alone, critic(alone))[i])
        assert not torch.equal(together[0][:45], together[4][:45])  # the control: another prompt


def test_the_monitor_names_the_sequence_and_position(folder):
    samples = _samples(GROUP)
    pack, policy = _tree(samples), _policy(Family.qwen3, torch.float32, folder)
    with torch.no_grad():
        output = policy(pack)
    pack = replace(pack, rollout_logprobs=output.logprobs.clone())
    assert compare(pack, output, version=0).tokens_different == 0
    # The third sample's last token; other samples share some of its rows.
    item = int((pack.sequences == 2).nonzero()[-1])
    pack.rollout_logprobs.view(torch.int32)[item] += 1
    counts = compare(pack, output, version=0)
    assert (counts.first.sequence, counts.first.position, counts.max_ulp) == (2, len(samples[2].rollout.tokens) - 1, 1)


def _loss_gradient(policy, pack):
    policy.zero_grad()
    (policy(pack).logprobs * _weights(pack.mask.numel())).sum().backward()
    return [p.grad.clone() for p in policy.parameters()]


def _weights(items):
    return torch.randn(items, generator=torch.Generator().manual_seed(4))


def _exact_gradient(path, samples):
    """Stock transformers in float64, one sample at a time."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64, attn_implementation="eager")
    total, used = torch.zeros((), dtype=torch.float64), 0
    weights = _weights(sum(int(s.rollout.sampled[1:].sum()) for s in samples))
    for sample in samples:
        tokens = sample.rollout.tokens
        rows = torch.log_softmax(model(tokens[None], use_cache=False).logits[0, :-1] / TEMPERATURE, -1)
        chosen = rows.gather(-1, tokens[1:, None])[:, 0][sample.rollout.sampled[1:]]
        total = total + (chosen * weights[used : used + chosen.numel()]).sum()
        used += chosen.numel()
    total.backward()
    return [p.grad for p in model.parameters()]


def _distance(grads, exact):
    """The relative distance of the gradients of all parameters together."""
    square = sum(float((g.double() - e).square().sum()) for g, e in zip(grads, exact, strict=True))
    return (square / sum(float(e.square().sum()) for e in exact)) ** 0.5


@pytest.mark.parametrize("family", [Family.qwen3, Family.mistral])
def test_the_gradient(family, folder):
    """Over all parameters, a tree and separate samples are both within 64 * 2^-24 (the rounding of fp32) of float64."""
    samples = _samples(GROUP)
    policy = _policy(family, torch.float32, folder)
    exact = _exact_gradient(_model_path(family, folder), samples)
    tree = _loss_gradient(policy, _tree(samples))
    apart = _loss_gradient(policy, pack_samples(samples, list(range(len(samples)))))
    assert _distance(tree, exact) < ROUNDING
    assert _distance(apart, exact) < ROUNDING
    assert _distance(tree, apart) < ROUNDING
    pack = _tree(samples)
    off = replace(pack.paths, table=(pack.paths.table - 1).clamp_min(0))
    assert _distance(_loss_gradient(policy, replace(pack, paths=off)), exact) > 1e3 * ROUNDING  # the control


def test_gradient_checkpointing_changes_no_bit(folder):
    model = AutoModelForCausalLM.from_pretrained(_model_path(Family.qwen3, folder), dtype=torch.float32)
    policy = Policy(model, mode=KernelMode.invariant, leaves=8, dtype=torch.float32, temperature=TEMPERATURE).train()
    pack = _tree(_samples(GROUP))
    plain = _loss_gradient(policy, pack)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert all(torch.equal(a, b) for a, b in zip(plain, _loss_gradient(policy, pack), strict=True))
