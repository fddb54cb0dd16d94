"""Rotary positions: one function makes the table for both sides.

Angles are taken in fp64 with the C library's scalar functions, then rounded to fp32, then to the model's
dtype. Rotation is Hugging Face's elementwise order in the model's dtype: x cos + rotate_half(x) sin.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from rlsync.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """What fixes a rotary table."""

    dim: int
    """Rotated dims of a head."""
    theta: float
    max_positions: int
    scaling_factor: float = 1.0
    """Llama-3 scaling when low_freq_factor > 0, linear otherwise."""
    low_freq_factor: float = 0.0
    high_freq_factor: float = 0.0
    original_max_positions: int = 0


def spec_from_config(parameters: dict[str, object], dim: int, max_positions: int) -> RopeSpec:
    """Read a Hugging Face `rope_parameters` dict.

    Raises:
        ConfigError: a rope type whose table depends on the sequence, or that is not known.
    """
    kind = parameters.get("rope_type", "default")
    if float(str(parameters.get("partial_rotary_factor", 1.0))) != 1.0:
        raise ConfigError("partial_rotary_factor is not supported: rlsync's rotary op turns whole heads")
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
        f"rope_type={kind} is not supported: its table is not shared with vLLM. Use default, linear or llama3."
    )


def inverse_frequencies(spec: RopeSpec) -> list[float]:
    """theta^(-2i/dim), scaled; fp64."""
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
    """[max_positions, dim]: cos of the dim/2 angles, then their sin."""
    freqs = inverse_frequencies(spec)
    rows = [[f(p * freq) for f in (math.cos, math.sin) for freq in freqs] for p in range(spec.max_positions)]
    return torch.tensor(rows, dtype=torch.float64).to(torch.float32).to(dtype)
