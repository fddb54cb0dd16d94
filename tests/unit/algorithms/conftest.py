"""Random packs in float64."""

from dataclasses import replace

import pytest
import torch

from rlsync.pack import Pack
from rlsync.samples import FinishReason, Rollout, TrainSample
from rlsync.trainer.packing import pack_samples


@pytest.fixture
def make_pack():
    def make(lengths=((1, 3), (2, 5), (1, 1)), seed=0) -> Pack:
        """Sequences of (prompt, response) tokens, with random float64 log-probs and advantages."""
        g = torch.Generator().manual_seed(seed)
        samples = []
        for prompt, response in lengths:
            sampled = torch.arange(prompt + response) >= prompt
            samples.append(
                TrainSample(
                    advantage=torch.randn((), generator=g).expand(prompt + response),
                    rollout=Rollout(
                        tokens=torch.arange(prompt + response), sampled=sampled, seed=0,
                        logprobs=torch.where(sampled, -torch.rand(prompt + response, generator=g) * 3, 0.0),
                        weight_version=torch.zeros(prompt + response, dtype=torch.int32),
                        finish_reason=FinishReason.stop,
                    ),
                )
            )  # fmt: skip
        pack = pack_samples(samples, list(range(len(samples))))
        return replace(pack, rollout_logprobs=pack.rollout_logprobs.double(), advantages=pack.advantages.double())

    return make


@pytest.fixture
def make_logprobs():
    def make(pack: Pack, spread: float = 0.3, seed: int = 1) -> torch.Tensor:
        """Log-probs [T] float64, with a gradient, near the rollout's; their ratios avoid the corners of the clip."""
        noise = torch.randn(pack.mask.numel(), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (pack.rollout_logprobs + spread * noise).requires_grad_()

    return make
