"""Turns the measurements of end_to_end.py into rows of the tables rollouts, startup and bits."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlsync.samples import RolloutRequest

MODES = ("exact", "stock", "stock_batch_invariant")
GROUP = 8
"""Requests that share a prompt."""


@dataclass
class Outcome:
    tokens_per_s: dict[str, float] = field(default_factory=dict)
    """By number of requests."""
    waiting: dict[str, float] = field(default_factory=dict)
    """Share of that time in which the engine's process waits for the GPU; with TP=1, whose worker lives in it."""
    compared: int = 0
    different: int = 0
    draws_different: int = 0
    max_abs_diff: float = 0.0
    order_differs: int = -1
    """Requests whose tokens or bits depended on the order of arrival; -1: not tried."""
    start_s: float = 0.0
    kernels_compiled: bool = False
    """Whether Triton compiled kernels during the start."""
    digest: str = ""
    """Digest of all tokens and log-probs."""


@dataclass(frozen=True)
class Load:
    """A batch of requests, as the KV cache sees it."""

    requests: int
    tokens: int
    """At the end of all requests; a prompt that several share counts once."""
    head_bytes: int
    """Keys and values of a token, in bf16, of one KV head in all layers."""
    heads: int

    @classmethod
    def of(cls, batch: Sequence[RolloutRequest], config: Mapping[str, Any]) -> Load:
        tokens = sum(request.max_tokens for request in batch) + sum(len(request.prompt) for request in batch[::GROUP])
        channels = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        return cls(len(batch), tokens, 4 * channels * config["num_hidden_layers"], config["num_key_value_heads"])

    def fits(self, kv_mib: int, tp: int, seats: int) -> bool:
        """Whether a worker's cache holds the requests that are in flight at once."""
        in_flight = self.tokens * min(1.0, seats / self.requests)
        return in_flight * self.head_bytes * max(1, self.heads // tp) <= kv_mib << 20


Outcomes = Mapping[tuple[str, int], Outcome]


def rollout_rows(
    shape: str, args: argparse.Namespace, loads: Mapping[int, Load], outcomes: Outcomes
) -> list[dict[str, object]]:
    """All modes of one TP and number of requests are a row."""
    rows = []
    for tp in dict.fromkeys(tp for _, tp in outcomes):
        for count in args.requests:
            row: dict[str, object] = {"shape": shape, "tp": tp, "requests": count, "seats": args.seats or None}
            row |= {"tokens": args.tokens, "spread": args.spread, "kv_mib": args.kv_mib or None}
            row["cache_fits"] = loads[count].fits(args.kv_mib, tp, args.seats or count) if args.kv_mib else None
            for mode in MODES:
                outcome = outcomes.get((mode, tp))
                speed = outcome.tokens_per_s.get(str(count)) if outcome else None
                row[f"{mode.removeprefix('stock_')}_tokens_per_s"] = speed
            rows.append(row)
    return rows


def startup_rows(shape: str, args: argparse.Namespace, outcomes: Outcomes) -> list[dict[str, object]]:
    """Make the rows of the table startup; `kernels` is given for exact engines that started by themselves."""
    rows: list[dict[str, object]] = []
    for (mode, tp), outcome in outcomes.items():
        known = mode == "exact" and args.device == "cuda" and not args.together
        kernels = ("compiled" if outcome.kernels_compiled else "cached") if known else None
        name = mode.removeprefix("stock_")
        rows.append({"shape": shape, "tp": tp, "mode": name, "kernels": kernels, "start_s": outcome.start_s})
    return rows


def bit_rows(shape: str, args: argparse.Namespace, outcomes: Outcomes) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for (mode, tp), outcome in outcomes.items():
        exact, compared = mode == "exact", bool(outcome.compared)
        if exact or compared:
            rows.append({
                "shape": shape, "tp": tp, "ranks": args.ranks if compared else None,
                "mode": mode.removeprefix("stock_"), "compared": outcome.compared or None,
                "different": outcome.different if compared else None,
                "draws_different": outcome.draws_different if exact and compared else None,
                "max_abs_diff": outcome.max_abs_diff if compared else None,
                "orders": args.orders if exact and args.orders else None,
                "order_differs": outcome.order_differs if exact and args.orders else None,
                "digest": outcome.digest if exact else None,
            })  # fmt: skip
    return rows
