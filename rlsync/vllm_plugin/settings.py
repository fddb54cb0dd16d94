"""What the plugin must know of the run; travels in vLLM's additional_config."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vllm.config import VllmConfig, get_current_vllm_config

_KEY = "rlsync"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSettings:
    leaves: int
    row_parallel: str
    all_reduce: str
    temperature: float

    def as_additional_config(self) -> dict[str, object]:
        return {_KEY: asdict(self)}


def settings_of(config: VllmConfig) -> PluginSettings:
    additional = config.additional_config
    assert isinstance(additional, dict)
    return PluginSettings(**additional[_KEY])


def current_settings() -> PluginSettings:
    """Settings of the engine whose model is being built."""
    return settings_of(get_current_vllm_config())
