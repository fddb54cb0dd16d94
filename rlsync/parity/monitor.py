"""Compare and count. Pure: no engine, no mask or clip of the objective enters.

Bits are compared, not values within a tolerance; a NaN is counted, never dropped.
"""

from __future__ import annotations

import torch

from rlsync.pack import Pack, PolicyOutput
from rlsync.parity.counts import ParityCounts


def compare(pack: Pack, output: PolicyOutput, version: int) -> ParityCounts:
    """Compare a forward pass at weight `version` with what the rollout recorded.

    Every token that the model sampled is counted; those sampled at other weights are left out, by that reason.
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
    )
    if trainer.numel():
        difference = (trainer - rollout).to(torch.float64)
        counts.max_abs_diff = float(difference.abs().nan_to_num(nan=torch.inf).max())
        counts.max_ulp = int((_ordered(trainer) - _ordered(rollout)).abs().max())
        counts.k3_sum = float((difference.exp() - difference - 1).sum())
    if output.draws is not None:
        counts.draws_compared = trainer.numel()
        counts.draws_different = int((output.draws != pack.targets)[at_version].sum())
    if counts.tokens_different:
        item = int(at_version.nonzero()[int(different.nonzero()[0])])
        counts.first_sequence = int(pack.sequence_ids[pack.sequences[item]])
        counts.first_position = int(pack.item_positions[item]) + 1  # the item's own, not its row's
        counts.first_trainer = float(output.logprobs.detach()[item])
        counts.first_rollout = float(pack.rollout_logprobs[item])
    return counts


def judge(counts: ParityCounts, step: int) -> str | None:
    """What is wrong with a step's counts, in a sentence that says what to do; None if nothing is."""
    if counts.tokens_compared + counts.tokens_left_out_stale != counts.tokens_sampled:
        return f"step {step}: the monitor saw {counts.tokens_sampled} sampled tokens but accounted for fewer"
    if counts.tokens_compared == 0:
        return f"step {step}: no token was compared, so nothing is known of the mismatch"
    if counts.tokens_different:
        share = counts.tokens_different / counts.tokens_compared
        return (
            f"step {step}: {counts.tokens_different} of {counts.tokens_compared} tokens differ ({share:.1%}) between "
            f"rollout and trainer, by up to {counts.max_abs_diff:.3g} nats ({counts.max_ulp} ulp). First: sample "
            f"{counts.first_sequence}, position {counts.first_position}: rollout {counts.first_rollout!r}, trainer "
            f"{counts.first_trainer!r}. Use kernels=invariant on both sides, run `rlsync parity` on this model, or go "
            "on regardless with parity.on_divergence=warn."
        )
    if counts.nonfinite:
        return f"step {step}: {counts.nonfinite} log-probs are NaN or infinite; lower trainer.lr or look at the weights"
    if counts.draws_different:
        return (
            f"step {step}: {counts.draws_different} of {counts.draws_compared} tokens are not the ones that their "
            "log-probs, seed and position draw: the rollout was not sampled from this policy"
        )
    return None


def judge_ratio(low: float, high: float, step: int) -> str | None:
    """What is wrong if the first minibatch's importance ratios are not all exactly 1; None if they are.

    Args:
        low, high: the least and the greatest of them.
    """
    if low == high == 1.0:
        return None
    return (
        f"step {step}: in the first minibatch the importance ratio goes from {low!r} to {high!r}, not exactly 1 "
        "throughout, although no log-prob differs: the objective compares with something else than what was sampled. "
        "This is a bug of the algorithm in use; report it, or go on with parity.on_divergence=warn."
    )


def digest_message(names: list[str], step: int) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"step {step}: after the weight sync {len(names)} tensors differ between trainer and rollout workers: {shown}. "
        "The rollout would sample from stale or damaged weights; restart the run from its last saved weights."
    )


def _ordered(x: torch.Tensor) -> torch.Tensor:
    """fp32 -> int64 in the order of the numbers, neighbours one apart, -0.0 beside +0.0."""
    bits = x.view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)
