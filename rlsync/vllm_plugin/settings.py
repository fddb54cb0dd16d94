"""The plugin's settings, which travel in vLLM's additional_config."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vllm.config import VllmConfig, get_current_vllm_config

_KEY = "rlsync"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSettings:
    """The settings of a run that rlsync's layers in vLLM need."""

    leaves: int
    """Number of leaves of the reduction tree; 1 in the gather form."""
    row_parallel: str
    """The value of kernels.row_parallel."""
    all_reduce: str
    """The value of kernels.all_reduce."""
    temperature: float
    """Temperature of the policy."""

    def as_additional_config(self) -> dict[str, object]:
        """The settings as a value of vLLM's additional_config."""
        return {_KEY: asdict(self)}


def settings_of(config: VllmConfig) -> PluginSettings:
    """The plugin's settings in a configuration of vLLM."""
    additional = config.additional_config
    assert isinstance(additional, dict)
    return PluginSettings(**additional[_KEY])


def current_settings() -> PluginSettings:
    """The settings of the engine whose model vLLM is building."""
    return settings_of(get_current_vllm_config())
