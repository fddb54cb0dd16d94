"""What an rlsync engine asks of a request, whatever runner samples for it."""

from __future__ import annotations

from vllm import SamplingParams

SEED_KEY = "rlsync_seed"
GREEDY_KEY = "rlsync_greedy"


def check_params(params: SamplingParams) -> None:
    """Raises ValueError for a request that the trainer could not draw again."""
    if SEED_KEY not in (params.extra_args or {}):
        raise ValueError(f"a request to an rlsync engine needs extra_args[{SEED_KEY!r}]")
    altered = {
        "presence_penalty": params.presence_penalty != 0,
        "frequency_penalty": params.frequency_penalty != 0,
        "repetition_penalty": params.repetition_penalty != 1,
        "logit_bias": bool(params.logit_bias),
        "structured_outputs": params.structured_outputs is not None,
        "temperature": params.temperature != 0,
        "min_tokens": params.min_tokens != 0,
        "allowed_token_ids": params.allowed_token_ids is not None,
        "bad_words": bool(params.bad_words),
        "thinking_token_budget": params.thinking_token_budget is not None,
        "trace_decode_token_ids": params.trace_decode_token_ids is not None,
    }
    for name, present in altered.items():
        if present:
            raise ValueError(f"{name} changes the sampled distribution; an rlsync engine refuses it")
    others = (params.prompt_logprobs, params.prompt_logprob_token_ids, params.logprob_token_ids)
    if params.logprobs != 0 or any(each is not None for each in others):
        raise ValueError(
            "an rlsync engine reports log-probs of drawn tokens alone: logprobs=0, of no prompt and no chosen tokens"
        )
