"""The words in which the console tells the monitor's result."""

from __future__ import annotations


def parity_text(*, sampled: int, compared: int, different: int, rows_different: int) -> str:
    """Return `0 of 1843 tokens differ`, with the share of tokens that were compared if it is not all.

    Args:
        sampled: Number of tokens that the model sampled.
        compared: Number of tokens that were compared.
        different: Number of compared tokens whose log-probs differ.
        rows_different: Number of compared tokens for which some logit differs; it is named if it is greater.
    """
    text = f"{different} of {compared} tokens differ"
    if rows_different > different:
        text += f", and other logits of {rows_different - different} more"
    if compared < sampled:
        text += f" ({compared / sampled:.0%} of all tokens compared)"
    return text


def parity_of(metrics: dict[str, float]) -> str:
    """Return the text for the metrics of a step."""
    return parity_text(
        sampled=int(metrics["parity/tokens_sampled"]),
        compared=int(metrics["parity/tokens_compared"]),
        different=int(metrics["parity/tokens_different"]),
        rows_different=int(metrics["parity/rows_different"]),
    )
