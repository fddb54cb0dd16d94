"""The table of rotary positions, which one function makes for trainer and rollout.

Sines and cosines are computed in fp64 with the C library's scalar functions, rounded to fp32, and then to the compute
dtype. The rotation follows Hugging Face's elementwise order in the compute dtype: x cos + rotate_half(x) sin.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from rlsync.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """The parameters of a rotary table, as in a Hugging Face config."""

    dim: int
    """Number of channels of a head that are rotated."""
    theta: float
    """Base of the frequencies (rope_theta)."""
    max_positions: int
    """Number of positions of the table."""
    scaling_factor: float = 1.0
    """Factor of Llama-3 scaling if low_freq_factor > 0, and of linear scaling otherwise."""
    low_freq_factor: float = 0.0
    high_freq_factor: float = 0.0
    original_max_positions: int = 0


def spec_from_config(parameters: dict[str, object], dim: int, max_positions: int) -> RopeSpec:
    """Read the `rope_parameters` of a Hugging Face config.

    Args:
        parameters: the `rope_parameters`.
        dim: channels of a head.
        max_positions: largest number of positions of the model.

    Raises:
        ConfigError: the rope type is not supported, or only a part of each head is rotated.
    """
    kind = parameters.get("rope_type", "default")
    if float(str(parameters.get("partial_rotary_factor", 1.0))) != 1.0:
        raise ConfigError(
            f"partial_rotary_factor={parameters['partial_rotary_factor']} is not supported by kernels=invariant, which "
            "rotates whole heads only. Use another model or kernels=native."
        )
    theta = float(str(parameters["rope_theta"]))
    if kind == "default":
        return RopeSpec(dim, theta, max_positions)
    factor = float(str(parameters.get("factor", 1.0)))
    if kind == "linear":
        return RopeSpec(dim, theta, max_positions, factor)
    if kind == "llama3":
        return RopeSpec(
            dim,
            theta,
            max_positions,
            factor,
            float(str(parameters["low_freq_factor"])),
            float(str(parameters["high_freq_factor"])),
            int(str(parameters["original_max_position_embeddings"])),
        )
    raise ConfigError(
        f"rope_type={kind} is not supported by kernels=invariant, which supports default, linear and llama3. Use "
        "another model or kernels=native."
    )


def inverse_frequencies(spec: RopeSpec) -> list[float]:
    """The scaled frequencies theta^(-2i/dim) for i < dim / 2, in fp64."""
    return [_scale(1.0 / math.pow(spec.theta, i / spec.dim), spec) for i in range(0, spec.dim, 2)]


def _scale(freq: float, spec: RopeSpec) -> float:
    if not spec.low_freq_factor:
        return freq / spec.scaling_factor
    wavelength = 2 * math.pi / freq
    if wavelength < spec.original_max_positions / spec.high_freq_factor:
        return freq
    if wavelength > spec.original_max_positions / spec.low_freq_factor:
        return freq / spec.scaling_factor
    smooth = (spec.original_max_positions / wavelength - spec.low_freq_factor) / (
        spec.high_freq_factor - spec.low_freq_factor
    )
    return (1 - smooth) * freq / spec.scaling_factor + smooth * freq


@functools.cache
def rope_table(spec: RopeSpec, dtype: torch.dtype) -> torch.Tensor:
    """The table [max_positions, dim] in `dtype`: for each position the cosines of dim / 2 angles, then their sines."""
    freqs = inverse_frequencies(spec)
    rows = [[f(p * freq) for f in (math.cos, math.sin) for freq in freqs] for p in range(spec.max_positions)]
    return torch.tensor(rows, dtype=torch.float64).to(torch.float32).to(dtype)
