"""RMSNorm, the gated activation, log-probs and the draw: rows alone, right values, the CPU's draws."""

import pytest
import torch

from rlsync.kernels import ops


def _rows(t, w, dtype, seed=0):
    return torch.randn(t, w, generator=torch.Generator("cuda").manual_seed(seed), device="cuda").mul(3).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [128, 896, 4096, 5120])
def test_a_row_does_not_know_the_others(dtype, width):
    x = _rows(257, width, dtype)
    calls = (
        lambda r: ops.rms_norm(r, x[0], 1e-6),
        lambda r: ops.silu_and_mul(r, r),
        lambda r: ops.logprobs(r.float(), 0.7),
    )
    for call in calls:
        whole = call(x)
        for rows in (slice(0, 1), slice(7, 9), slice(130, 257)):
            assert torch.equal(call(x[rows]), whole[rows])
    assert not torch.equal(ops.rms_norm(x[1:2], x[0], 1e-6), ops.rms_norm(x[2:3], x[0], 1e-6))  # the control


def test_values():
    x = _rows(20, 4096, torch.float32)
    torch.testing.assert_close(ops.rms_norm(x, x[0], 1e-6), torch.nn.functional.rms_norm(x, (4096,), x[0], 1e-6))
    torch.testing.assert_close(ops.silu_and_mul(x, x), torch.nn.functional.silu(x) * x)
    torch.testing.assert_close(ops.logprobs(x, 0.7), torch.log_softmax(x / 0.7, -1))


def test_draws_follow_the_distribution_and_repeat():
    row = torch.log_softmax(_rows(1, 16, torch.float32) / 3, -1)
    rows = row.expand(20000, -1).contiguous()
    seeds, positions = torch.arange(20000, device="cuda"), torch.zeros(20000, dtype=torch.int64, device="cuda")
    drawn = ops.draw(rows, seeds, positions)
    assert torch.equal(drawn, ops.draw(rows, seeds, positions))
    assert not torch.equal(drawn, ops.draw(rows, seeds, positions + 1))
    share = torch.bincount(drawn, minlength=16) / 20000
    assert (share - row[0].exp()).abs().max() < 0.02
