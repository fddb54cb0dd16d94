"""The monitor counts every sampled token by its bits, and a step without comparisons is an error."""

import torch

from rlsync.kernels import ops
from rlsync.pack import Pack, PolicyOutput
from rlsync.parity.counts import Difference, Expected, ParityCounts, merge
from rlsync.parity.monitor import compare, judge, left_out
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
        row_digests=torch.where(sampled, torch.arange(total) * 7919, 0),
    )


def _pack() -> Pack:
    """A pack of two sequences, whose items are 0-2 and 3-5."""
    return pack_samples([TrainSample(rollout=rollout(2, 3)) for _ in range(2)], [0, 1])


def _output(pack: Pack) -> PolicyOutput:
    return PolicyOutput(
        logprobs=pack.rollout_logprobs.clone(),
        entropy=torch.zeros(len(pack.targets)),
        digests=pack.rollout_digests.clone(),
        draws=pack.targets.clone(),
    )


ALL = Expected(tokens_sampled=6)


def test_equal_bits_pass():
    pack = _pack()
    counts = compare(pack, _output(pack), version=3)
    assert (counts.tokens_sampled, counts.tokens_compared, counts.tokens_different) == (6, 6, 0)
    assert (counts.max_ulp, counts.draws_different, counts.first) == (0, 0, None)
    assert (counts.rows_compared, counts.rows_different, counts.share_compared) == (6, 0, 1.0)
    assert judge(counts, 1, ALL) is None


def test_one_ulp_is_found_and_placed():
    pack = _pack()
    output = _output(pack)
    output.logprobs.view(torch.int32)[4] += 1  # second token of the second sequence's response
    counts = compare(pack, output, version=3)
    assert (counts.tokens_different, counts.max_ulp) == (1, 1)
    assert (counts.first.sequence, counts.first.position) == (1, 3)
    assert "1 of 6 tokens differ" in judge(counts, 9, ALL)


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
    assert "NaN" in judge(counts, 1, ALL)


def test_stale_tokens_are_left_out_by_reason_and_comparing_nothing_fails():
    pack = _pack()
    counts = compare(pack, _output(pack), version=4)
    assert (counts.tokens_sampled, counts.tokens_compared, counts.tokens_left_out_stale) == (6, 0, 6)
    assert "no token was compared" in judge(counts, 1, ALL)
    assert judge(ParityCounts(), 1, Expected(tokens_sampled=0)) is not None


def test_a_wrong_draw_is_found():
    pack = _pack()
    output = _output(pack)
    output.draws[2] += 1
    counts = compare(pack, output, version=3)
    assert counts.draws_different == 1
    assert "differ from those that the trainer draws" in judge(counts, 1, ALL)


def test_an_unsampled_tokens_logit_that_differs_by_one_ulp_is_found():
    pack = _pack()
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(0))
    pack.rollout_digests = ops.row_digests(logits)
    other = logits.clone()
    other.view(torch.int32)[4, 299] += 1  # no token of the pack has this id, and no log-prob changes
    output = _output(pack)
    assert judge(compare(pack, output, version=3), 1, ALL) is None  # the control
    output.digests = ops.row_digests(other)
    counts = compare(pack, output, version=3)
    assert (counts.tokens_different, counts.rows_different) == (0, 1)
    assert (counts.first.sequence, counts.first.position) == (1, 3)
    assert "for 1 of 6 tokens the logits of other tokens differ" in judge(counts, 1, ALL)


def test_rows_are_not_compared_if_an_engine_makes_no_digests():
    pack = _pack()
    output = _output(pack)
    pack.rollout_digests = None
    counts = compare(pack, output, version=3)
    assert (counts.tokens_compared, counts.rows_compared) == (6, 0)


def test_what_the_configuration_does_not_explain_may_not_be_left_out():
    first, second = _pack(), _pack()
    counts = merge([compare(first, _output(first), version=3), left_out(second)])
    assert (counts.tokens_sampled, counts.tokens_compared, counts.tokens_left_out_updated) == (12, 6, 6)
    assert counts.share_compared == 0.5
    assert judge(counts, 1, Expected(tokens_sampled=12, tokens_left_out=6)) is None
    assert "explains only 5" in judge(counts, 1, Expected(tokens_sampled=12, tokens_left_out=5))
    assert "report this as a bug" in judge(counts, 1, Expected(tokens_sampled=13, tokens_left_out=6))
    million = ParityCounts(tokens_sampled=10**6, tokens_compared=1, tokens_left_out_stale=10**6 - 1)
    assert "left out 999999 of 1000000" in judge(million, 1, Expected(tokens_sampled=10**6))


def test_merge_keeps_the_first_divergence_and_adds_up():
    late = Difference(sequence=4, position=2, trainer=0.0, rollout=1.0)
    early = Difference(sequence=1, position=9, trainer=0.0, rollout=1.0)
    a = ParityCounts(tokens_sampled=2, tokens_compared=2, tokens_different=1, first=late, max_ulp=7)
    b = ParityCounts(tokens_sampled=3, tokens_compared=3, tokens_different=1, first=early)
    total = merge([a, ParityCounts(), b])
    assert (total.tokens_compared, total.tokens_different, total.max_ulp) == (5, 2, 7)
    assert total.first == early
