"""Results of each row of a chunk of logits, and the gradient with respect to the logits."""

from __future__ import annotations

import torch

from rlsync.kernels.cpu.logprobs import logprobs
from rlsync.kernels.cpu.row_digests import row_digests
from rlsync.kernels.cpu.sampling import draw
from rlsync.kernels.row_results import DrawnTokens, RowScores

_NO_CHANCE = -1e4
"""A log-prob in place of -inf whose exp is 0 in fp32, so that 0 times it is 0 and not NaN."""


def row_scores(
    logits: torch.Tensor,
    temperature: float,
    targets: torch.Tensor,
    seeds: torch.Tensor | None,
    positions: torch.Tensor | None,
) -> RowScores:
    """Compute the results that are kept of rows of logits.

    Args:
        logits: [T, V] fp32.
        temperature: temperature of the policy.
        targets: [T] int64.
        seeds, positions: [T] int64; if None, no tokens are drawn.
    """
    digests = row_digests(logits)
    rows = logprobs(logits, temperature)
    # The log-prob of the most probable token is 0 - log(sum).
    stats = torch.stack((logits.amax(-1) / temperature, -rows.amax(-1)), -1)
    draws = None if seeds is None or positions is None else draw(rows, seeds, positions)
    chosen = rows.gather(-1, targets[:, None])[:, 0]
    probs = rows.exp()
    finite = rows.clamp_min_(torch.finfo(rows.dtype).min)  # so that 0 * -inf is 0 and not NaN
    return RowScores(chosen, -probs.mul_(finite).sum(-1), stats, digests, draws)


def draw_scored(logits: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor) -> DrawnTokens:
    """Draw one token for each row of fp32 logits [T, V], with seeds and positions [T] int64."""
    rows = logprobs(logits, temperature)
    tokens = draw(rows, seeds, positions)
    return DrawnTokens(tokens, rows.gather(-1, tokens[:, None])[:, 0], row_digests(logits))


def logit_grads(
    logits: torch.Tensor,
    temperature: float,
    targets: torch.Tensor,
    stats: torch.Tensor,
    grad: torch.Tensor,
    dtype: torch.dtype,
    entropy: torch.Tensor | None = None,
    entropy_grad: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gradient of sum(grad * log-prob of the target + entropy_grad * entropy) with respect to the logits.

    It is grad (onehot - p) / temperature - entropy_grad p (log p + entropy) / temperature.

    Args:
        logits: [T, V] fp32.
        temperature: temperature of the policy.
        targets: [T] int64.
        stats: [T, 2] fp32, from row_scores.
        grad: [T] fp32, gradient of the targets' log-probs.
        dtype: dtype of the result.
        entropy: [T] fp32, from row_scores; None if the entropy has no gradient.
        entropy_grad: [T] fp32, gradient of the entropy; None if it has none.

    Returns:
        [T, V] in `dtype`.
    """
    scale = (grad / temperature)[:, None]
    rows = (logits / temperature).sub_(stats[:, :1]).sub_(stats[:, 1:])
    if entropy is None or entropy_grad is None:
        out = rows.exp_().mul_(-scale)
    else:
        probs = rows.exp()
        pull = rows.clamp_min_(_NO_CHANCE).add_(entropy[:, None]).mul_((entropy_grad / temperature)[:, None])
        out = pull.add_(scale).mul_(probs).neg_()
    return out.scatter_add_(-1, targets[:, None], scale).to(dtype)
