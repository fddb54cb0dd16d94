"""Per-row results of a chunk of logits, and the chunk's gradient."""

from __future__ import annotations

import torch

from rlsync.kernels.cpu.logprobs import logprobs
from rlsync.kernels.cpu.sampling import draw

_NO_CHANCE = -1e4
"""A log-prob whose exp is 0 in fp32, in place of -inf: 0 * -inf counts as 0."""


def row_scores(
    logits: torch.Tensor,
    temperature: float,
    targets: torch.Tensor,
    seeds: torch.Tensor | None,
    positions: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What is kept of rows of logits.

    Args:
        logits: [T, V] fp32.
        targets: [T] int64.
        seeds, positions: [T] int64, or None: nothing is drawn.
    Returns:
        Log-prob of the target [T], entropy [T], (max of logits / temperature, log of the sum of exponentials below
        it) [T, 2], all fp32, and the drawn tokens [T] int64 or None.
    """
    rows = logprobs(logits, temperature)
    # The likeliest token's log-prob is 0 - log(sum).
    stats = torch.stack((logits.amax(-1) / temperature, -rows.amax(-1)), -1)
    draws = None if seeds is None or positions is None else draw(rows, seeds, positions)
    chosen = rows.gather(-1, targets[:, None])[:, 0]
    probs = rows.exp()
    finite = rows.clamp_min_(torch.finfo(rows.dtype).min)  # 0 * -inf counts as 0
    return chosen, -probs.mul_(finite).sum(-1), stats, draws


def draw_scored(
    logits: torch.Tensor, temperature: float, seeds: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Drawn tokens [T] int64 of logits [T, V], and their log-probs [T] fp32."""
    rows = logprobs(logits, temperature)
    tokens = draw(rows, seeds, positions)
    return tokens, rows.gather(-1, tokens[:, None])[:, 0]


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
    """Gradient of sum(grad * log-prob of the target + entropy_grad * entropy) by the logits.

    grad (onehot - p) / temperature - entropy_grad p (log p + entropy) / temperature.

    Args:
        logits: [T, V] fp32.
        targets: [T] int64.
        stats: [T, 2] fp32, from row_scores.
        grad: [T] fp32.
        dtype: of the result.
        entropy, entropy_grad: [T] fp32, entropy from row_scores; or None: the entropy has no gradient.
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
