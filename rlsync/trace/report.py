"""The report of a trace, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass

from rlsync.trace.find import Growth, Place, Value
from rlsync.trace.records import Op

_CAUSES = {
    Op.embed_tokens: "the embedding's weights differ, or the engine looked up other tokens",
    Op.input_layernorm: "the norm's weight, its epsilon or its rounding differs",
    Op.post_attention_layernorm: "the norm's weight, its epsilon or its rounding differs",
    Op.norm: "the norm's weight, its epsilon or its rounding differs",
    Op.q_norm: "the norm's weight, its epsilon or its rounding differs",
    Op.k_norm: "the norm's weight, its epsilon or its rounding differs",
    Op.q_proj: "the weight or the bias of the projection, or the order of its sums, differs",
    Op.k_proj: "the weight or the bias of the projection, or the order of its sums, differs",
    Op.v_proj: "the weight or the bias of the projection, or the order of its sums, differs",
    Op.gate_proj: "the weight of the projection, or the order of its sums, differs",
    Op.up_proj: "the weight of the projection, or the order of its sums, differs",
    Op.rope_q: "the table of the rotary embedding or the rounding of the rotation differs",
    Op.rope_k: "the table of the rotary embedding or the rounding of the rotation differs",
    Op.attention: "the order of the sums over the keys differs, or the KV cache holds keys and values of other weights",
    Op.o_proj_root: "the rank's part of the weight, its leaves or the order of its sums differs",
    Op.down_proj_root: "the rank's part of the weight, its leaves or the order of its sums differs",
    Op.o_proj: "the weight or the bias differs, or the parts of the ranks are added in another order",
    Op.down_proj: "the weight or the bias differs, or the parts of the ranks are added in another order",
    Op.act: "the rounding of SiLU or of the product differs",
    Op.residual: "the residual is added or rounded in another way",
    Op.residual_mid: "the residual is added or rounded in another way",
    Op.last_residual: "the residual is added or rounded in another way",
    Op.logits: "the weight of the LM head, or the order of its sums, differs",
    Op.logprob: "the temperature or the order of the sum over the vocabulary differs",
}


TABLE_COLUMNS = ["op", "tokens that differ", "max ulp", "max abs", "relative"]
"""Columns of the table of a report: the last three are of the first token that differs at each op."""


@dataclass(slots=True, kw_only=True, frozen=True)
class TraceReport:
    """What the replay of one sequence found."""

    sequence: int
    """Index of the sample in its step, or in the request list of `rlsync parity`."""
    tp: int
    """Tensor-parallel size of the engine."""
    place: Place | None
    """The first difference; None if every recorded value agrees in the replay."""
    value: Value | None = None
    """The first value that differs at `place`."""
    growth: list[Growth]
    """The difference at every op."""
    engine_repeats: bool = True
    """Whether two replays in the engine gave the same bits."""
    same_rollout: bool = True
    """Whether the replay in the engine gave the tokens and the log-probs of the rollout."""
    seconds: float = 0.0
    """Duration of the trace."""


def headline(report: TraceReport) -> str:
    """Return one or two sentences that name the first difference and its likely cause."""
    place, value = report.place, report.value
    if place is None:
        return (
            f"The replay of sample {report.sequence} agrees with the trainer at every op. If its rollout did not, the "
            "difference comes from the state or the batch in which it was sampled, not from weights or kernels alone."
            + _repeats(report)
        )
    ranks = ", ".join(map(str, place.ranks))
    where = f"TP rank {ranks} of {report.tp}" if report.tp > 1 else "the engine"
    text = f"First difference: {place.name}, {where}, token at position {place.position}"
    if value is not None:
        text += (
            f": trainer {value.trainer!r}, engine {value.engine!r} in column {value.column}, {value.ulp} ulp apart "
            f"({value.differing} of {value.columns} values differ)"
        )
    return f"{text}. All earlier ops agree, so {_CAUSES[place.op]}.{_repeats(report)}"


def table_rows(report: TraceReport) -> list[list[str]]:
    """Return a row of texts for each op that differs, for the columns TABLE_COLUMNS."""
    return [
        [
            each.name,
            f"{each.tokens_different} of {each.tokens}",
            "" if each.max_ulp is None else str(each.max_ulp),
            "" if each.max_abs_diff is None else f"{each.max_abs_diff:.3g}",
            "" if each.relative_diff is None else f"{each.relative_diff:.2g}",
        ]
        for each in report.growth
        if each.tokens_different
    ]


def _repeats(report: TraceReport) -> str:
    text = ""
    if not report.engine_repeats:
        text += " Two replays in the engine differ from each other: an op there is not deterministic."
    if not report.same_rollout:
        text += " The replay did not give the tokens and log-probs of the rollout."
    return text
