"""Names of the files and folders in a run folder."""

from __future__ import annotations

CONFIG, METRICS, ROLLOUTS, SUMMARY = "config.yaml", "metrics.jsonl", "rollouts.jsonl", "summary.json"
ALARMS = "alarms.jsonl"
CHECKPOINTS, LOGS = "checkpoints", "logs"
