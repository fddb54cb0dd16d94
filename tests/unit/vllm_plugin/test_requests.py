"""Requests that an rlsync engine refuses, since the trainer could not draw their tokens again."""

from __future__ import annotations

from typing import Any

import pytest
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from rlsync.vllm_plugin.requests import SEED_KEY, check_params


def _params(**others: Any) -> SamplingParams:
    return SamplingParams(**{"temperature": 0.0, "logprobs": 0, "extra_args": {SEED_KEY: 1}} | others)


def test_what_the_rollout_engine_asks_for_is_taken():
    check_params(_params(max_tokens=8, stop_token_ids=[2], detokenize=False, flat_logprobs=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("presence_penalty", 0.5),
        ("frequency_penalty", 0.5),
        ("repetition_penalty", 1.5),
        ("logit_bias", {1: 2.0}),
        ("structured_outputs", StructuredOutputsParams(regex="a+")),
        ("temperature", 1.0),
        ("min_tokens", 2),
        ("allowed_token_ids", [1, 2]),
        ("bad_words", ["no"]),
        ("thinking_token_budget", 5),
        ("trace_decode_token_ids", [1, 2]),
    ],
)
def test_a_changed_distribution_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field} changes the sampled distribution"):
        check_params(_params(**{field: value}))


@pytest.mark.parametrize(
    "others",
    [
        {"logprobs": None},
        {"logprobs": 3},
        {"prompt_logprobs": 0},
        {"prompt_logprob_token_ids": [[1]]},
        {"logprob_token_ids": [1]},
    ],
)
def test_log_probs_of_other_tokens_are_refused(others):
    with pytest.raises(ValueError, match="log-probs of drawn tokens only"):
        check_params(_params(**others))


def test_a_request_without_a_seed_is_refused():
    with pytest.raises(ValueError, match=SEED_KEY):
        check_params(_params(extra_args=None))
