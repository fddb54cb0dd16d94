"""Checks of the requests to an engine with exact kernels, for both of vLLM's model runners."""

from __future__ import annotations

from vllm import SamplingParams

SEED_KEY = "rlsync_seed"
"""Key of a request's seed in `extra_args`."""
GREEDY_KEY = "rlsync_greedy"
"""Key in `extra_args`: choose the most probable token instead of drawing one."""


def check_params(params: SamplingParams) -> None:
    """Refuse a request that the trainer could not draw again.

    Raises:
        ValueError: the request has no seed, or it has settings that change the distribution or the reported log-probs.
    """
    if SEED_KEY not in (params.extra_args or {}):
        raise ValueError(f"extra_args: a request to an rlsync engine needs a seed in extra_args[{SEED_KEY!r}]")
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
            raise ValueError(f"{name} changes the sampled distribution, so an rlsync engine refuses the request")
    others = (params.prompt_logprobs, params.prompt_logprob_token_ids, params.logprob_token_ids)
    if params.logprobs != 0 or any(each is not None for each in others):
        raise ValueError(
            "an rlsync engine reports the log-probs of drawn tokens only: set logprobs=0, and ask for no log-probs of "
            "prompts or of given tokens"
        )
