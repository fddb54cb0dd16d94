"""The monitor counts every sampled token by its bits, and a step without comparisons is an error."""

import torch

from rlsync.pack import Pack, PolicyOutput
from rlsync.parity.counts import ParityCounts, merge
from rlsync.parity.monitor import compare, judge
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.packing import pack_samples


def rollout(prompt: int, response: int, version: int = 3, seed: int = 1) -> Rollout:
    total = prompt + response
    sampled = torch.arange(total) >= prompt
    return Rollout(
        tokens=torch.arange(total) + 1,
        sampled=sampled,
        logprobs=torch.where(sampled, -torch.arange(total) / 7 - 0.1, 0.0),
        weight_version=torch.where(sampled, version, -1).to(torch.int32),
        seed=seed,
        finish_reason=FinishReason.stop,
    )


def _pack() -> Pack:
    """A pack of two sequences, whose items are 0-2 and 3-5."""
    return pack_samples([TrainSample(rollout=rollout(2, 3)) for _ in range(2)], [0, 1])


def _output(pack: Pack) -> PolicyOutput:
    return PolicyOutput(
        logprobs=pack.rollout_logprobs.clone(), entropy=torch.zeros(len(pack.targets)), draws=pack.targets.clone()
    )


def test_equal_bits_pass():
    pack = _pack()
    counts = compare(pack, _output(pack), version=3)
    assert (counts.tokens_sampled, counts.tokens_compared, counts.tokens_different) == (6, 6, 0)
    assert (counts.max_ulp, counts.draws_different, counts.first_position) == (0, 0, -1)
    assert judge(counts, 1) is None


def test_one_ulp_is_found_and_placed():
    pack = _pack()
    output = _output(pack)
    output.logprobs.view(torch.int32)[4] += 1  # second token of the second sequence's response
    counts = compare(pack, output, version=3)
    assert (counts.tokens_different, counts.max_ulp) == (1, 1)
    assert (counts.first_sequence, counts.first_position) == (1, 3)
    assert "1 of 6 tokens differ" in judge(counts, 9)


def test_minus_zero_is_another_value_one_step_away():
    pack = _pack()
    output = _output(pack)
    pack.rollout_logprobs[0], output.logprobs[0] = 0.0, -0.0
    counts = compare(pack, output, version=3)
    assert (counts.tokens_different, counts.max_ulp) == (1, 1)


def test_filler_does_not_count():
    pack = _pack()
    output = _output(pack)
    output.logprobs[2] = 5.0
    assert compare(pack, output, version=3).tokens_different == 1  # the control
    pack.mask[2] = False
    counts = compare(pack, output, version=3)
    assert (counts.tokens_sampled, counts.tokens_different) == (5, 0)


def test_nan_is_loud_even_on_both_sides():
    pack = _pack()
    pack.rollout_logprobs[0] = float("nan")
    counts = compare(pack, _output(pack), version=3)
    assert counts.nonfinite == 1
    assert "NaN" in judge(counts, 1)


def test_stale_tokens_are_left_out_by_reason_and_comparing_nothing_fails():
    pack = _pack()
    counts = compare(pack, _output(pack), version=4)
    assert (counts.tokens_sampled, counts.tokens_compared, counts.tokens_left_out_stale) == (6, 0, 6)
    assert "no token was compared" in judge(counts, 1)
    assert judge(ParityCounts(), 1) is not None


def test_a_wrong_draw_is_found():
    pack = _pack()
    output = _output(pack)
    output.draws[2] += 1
    counts = compare(pack, output, version=3)
    assert counts.draws_different == 1
    assert "differ from those that the trainer draws" in judge(counts, 1)


def test_merge_keeps_the_first_divergence_and_adds_up():
    a = ParityCounts(
        tokens_sampled=2, tokens_compared=2, tokens_different=1, first_sequence=4, first_position=2, max_ulp=7
    )
    b = ParityCounts(tokens_sampled=3, tokens_compared=3, tokens_different=1, first_sequence=1, first_position=9)
    total = merge([a, b])
    assert (total.tokens_compared, total.tokens_different, total.max_ulp) == (5, 2, 7)
    assert (total.first_sequence, total.first_position) == (1, 9)
