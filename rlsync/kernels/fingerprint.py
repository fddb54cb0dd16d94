"""The fingerprint of the kernels, on which all processes of a run must agree before any bits are compared."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import torch

from rlsync.kernels import ops, order
from rlsync.kernels.attention_spec import AttentionSpec

_SHARED = ("order.py", "ops", "rope.py", "collectives.py", "scores.py", "tp_sampling.py", "row_ops.py", "key_paths.py")
"""Files and folders that both backends use."""
_OWN = {"cpu": ("cpu", ("torch", "numba", "llvmlite")), "cuda": ("triton", ("torch", "triton"))}
"""For each device the folder of its kernels, and the libraries that compile them."""


def fingerprint(*, leaves: int, row_parallel: str, temperature: float, dtype: str, device: str) -> str:
    """A digest of the kernels' source, their libraries, the run's settings, and the kernels' results on fixed inputs.

    Processes with equal fingerprints have equal kernels.

    Args:
        leaves: number of leaves of the reduction tree.
        row_parallel: value of kernels.row_parallel.
        temperature: temperature of the policy.
        dtype: name of the compute dtype.
        device: `cpu` or `cuda`.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in (str(order.ORDER_VERSION), str(leaves), row_parallel, repr(float(temperature)), dtype, device):
        digest.update(part.encode() + b"\0")
    folder, libraries = _OWN[device]
    for library in libraries:
        digest.update(version(library).encode())
    root = Path(__file__).parent
    for name in (*_SHARED, folder):
        path = root / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    digest.update(_probe(device))
    return digest.hexdigest()[:16]


def _probe(device: str) -> bytes:
    """The results of the kernels on fixed inputs. Computing them also compiles the kernels or loads their cache."""
    # The inputs come from a multiplicative hash of integers, so they do not depend on a library's generator.
    ints = (torch.arange(1, 1 + 24 * 64, dtype=torch.int64) * 2654435761) % 65536
    x = ((ints.to(torch.float32) - 32768) / 16384).view(24, 64).to(device)
    starts = torch.tensor([0, 9, 24], device=device)
    out: list[torch.Tensor] = []
    for dtype in (torch.float32, torch.bfloat16):
        y = x.to(dtype)
        out += [ops.row_parallel_linear(y, y, leaves=8), ops.linear(y, y), ops.rms_norm(y, y[0], 1e-6)]
        heads = y.view(24, 4, 16)
        out += [
            ops.silu_and_mul(y, y),
            ops.attention(heads, heads, heads, AttentionSpec(starts=starts, scale=0.25, window=7)),
        ]
        cache = torch.cat([y.view(24, 4, 16)[:16]] * 2, dim=-1).transpose(0, 1)[None].contiguous()
        table, lengths = torch.zeros(1, 1, dtype=torch.int32, device=device), torch.tensor([16], device=device)
        out.append(ops.decode_attention(heads[:1], cache, table, lengths, 0.25))
    rows, numbers = ops.logprobs(ops.lm_head(x, x), 0.7), torch.arange(24, device=device)
    out += [rows, ops.draw(rows, numbers, numbers)]
    return b"".join(t.contiguous().view(torch.uint8).cpu().numpy().tobytes() for t in out)
