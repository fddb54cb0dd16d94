"""Compares the log-probs and the rows of logits of rollout and trainer, and words the results as messages.

Bits are compared, never values within a tolerance, and a NaN is counted. The comparison depends on the policy's outputs
only: no engine, no clip and no weight of the objective influences it.
"""

from __future__ import annotations

import torch

from rlsync.kernels.ulp import ulp_distance
from rlsync.pack import Pack, PolicyOutput
from rlsync.parity.counts import Difference, Expected, ParityCounts
from rlsync.parity.measures import mismatch_sums


def compare(pack: Pack, output: PolicyOutput, version: int) -> ParityCounts:
    """Compare a forward pass at weight `version` with what the rollout recorded.

    Every token that the model sampled is counted. Tokens that were sampled at another version are not compared and
    count as `tokens_left_out_stale`. If both sides have digests of the rows of logits, these are compared too.

    Args:
        pack: the sequences that were forwarded.
        output: the trainer's results for them.
        version: version of the weights of the forward pass.

    Returns:
        The counts of this pack.
    """
    sampled = pack.mask
    at_version = sampled & (pack.versions == version)
    trainer, rollout = output.logprobs.detach()[at_version], pack.rollout_logprobs[at_version]
    different = trainer.view(torch.int32) != rollout.view(torch.int32)
    counts = ParityCounts(
        tokens_sampled=int(sampled.sum()),
        tokens_compared=trainer.numel(),
        tokens_left_out_stale=int((sampled & ~at_version).sum()),
        tokens_different=int(different.sum()),
        nonfinite=int((~(trainer.isfinite() & rollout.isfinite())).sum()),
        mismatch=mismatch_sums(trainer, rollout),
    )
    if trainer.numel():
        difference = (trainer - rollout).to(torch.float64)
        counts.max_abs_diff = float(difference.abs().nan_to_num(nan=torch.inf).max())
        ulps = ulp_distance(trainer, rollout)
        counts.max_ulp = int(ulps.max())
        if counts.tokens_different:
            counts.ulps_by_power = torch.bincount(ulps[different].double().log2().long()).tolist()
    if output.digests is not None and pack.rollout_digests is not None:
        rows = (output.digests != pack.rollout_digests)[at_version]
        counts.rows_compared, counts.rows_different = rows.numel(), int(rows.sum())
        different |= rows
    if output.draws is not None:
        counts.draws_compared = trainer.numel()
        counts.draws_different = int((output.draws != pack.targets)[at_version].sum())
    if different.any():
        item = int(at_version.nonzero()[int(different.nonzero()[0])])
        counts.first = Difference(
            sequence=int(pack.sequence_ids[pack.sequences[item]]),
            position=int(pack.item_positions[item]) + 1,  # position of the item, not of the row before it
            trainer=float(output.logprobs.detach()[item]),
            rollout=float(pack.rollout_logprobs[item]),
        )
    return counts


def left_out(pack: Pack) -> ParityCounts:
    """Count the tokens of a pack that is forwarded only after an update, so that nothing can be compared."""
    sampled = int(pack.mask.sum())
    return ParityCounts(tokens_sampled=sampled, tokens_left_out_updated=sampled)


def judge(counts: ParityCounts, step: int, expected: Expected) -> str | None:
    """A message that says what is wrong with a step's counts and what to do; None if nothing is wrong."""
    return _judge_coverage(counts, step, expected) or _judge_bits(counts, step)


def _judge_coverage(counts: ParityCounts, step: int, expected: Expected) -> str | None:
    left_out = counts.tokens_left_out_stale + counts.tokens_left_out_updated
    if counts.tokens_sampled != expected.tokens_sampled or counts.tokens_compared + left_out != counts.tokens_sampled:
        return (
            f"step {step}: the model sampled {expected.tokens_sampled} tokens, but the monitor saw "
            f"{counts.tokens_sampled}, compared {counts.tokens_compared} and left out {left_out}; report this as a bug"
        )
    if counts.tokens_compared == 0:
        return f"step {step}: no token was compared, so nothing is known about the mismatch"
    if left_out > expected.tokens_left_out:
        return (
            f"step {step}: the monitor left out {left_out} of {counts.tokens_sampled} tokens "
            f"({counts.tokens_left_out_stale} sampled at other weights, {counts.tokens_left_out_updated} forwarded "
            f"after an update), but the configuration explains only {expected.tokens_left_out}; report this as a bug, "
            "or continue with parity.on_divergence=warn"
        )
    return None


def _judge_bits(counts: ParityCounts, step: int) -> str | None:
    if counts.tokens_different:
        share = counts.tokens_different / counts.tokens_compared
        return (
            f"step {step}: {counts.tokens_different} of {counts.tokens_compared} tokens differ ({share:.1%}) between "
            f"rollout and trainer, by up to {counts.max_abs_diff:.3g} nats ({counts.max_ulp} ulp). {_place(counts)} "
            "Use kernels=invariant, run `rlsync parity` to check this machine, or continue despite the difference with "
            "parity.on_divergence=warn."
        )
    if counts.rows_different:
        return (
            f"step {step}: the sampled tokens' log-probs are equal, but for {counts.rows_different} of "
            f"{counts.rows_compared} tokens the logits of other tokens differ between rollout and trainer. "
            f"{_place(counts)} Run `rlsync parity` to check this machine, or continue despite the difference with "
            "parity.on_divergence=warn."
        )
    if counts.nonfinite:
        return f"step {step}: {counts.nonfinite} log-probs are NaN or infinite; lower trainer.lr or check the weights"
    if counts.draws_different:
        return (
            f"step {step}: {counts.draws_different} of {counts.draws_compared} tokens differ from those that the "
            "trainer draws with the same seed and position, so the rollout was not sampled from this policy"
        )
    return None


def _place(counts: ParityCounts) -> str:
    first = counts.first
    assert first is not None
    return (
        f"First: sample {first.sequence}, position {first.position}: rollout {first.rollout!r}, trainer "
        f"{first.trainer!r}."
    )


def judge_ratio(low: float, high: float, step: int) -> str | None:
    """A message for importance ratios of the first minibatch that are not all exactly 1; None if they are.

    Args:
        low, high: the smallest and the largest ratio.
        step: the step that the message names.
    """
    if low == high == 1.0:
        return None
    return (
        f"step {step}: the importance ratios of the first minibatch range from {low!r} to {high!r} and must be exactly "
        "1, since no log-prob differs. The objective uses other old log-probs than those of the rollout. This is a bug "
        "of the algorithm in use; report it, or continue with parity.on_divergence=warn."
    )


def digest_message(names: list[str], step: int) -> str:
    """The message for a weight sync after which the tensors `names` differ between trainer and rollout workers."""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"step {step}: after the weight sync {len(names)} tensors differ between trainer and rollout workers: {shown}. "
        "The rollout would sample from stale or damaged weights. Restart the run from its last checkpoint."
    )
