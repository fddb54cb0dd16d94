"""The driver process: from a configuration to problems, samples, training steps and a run folder."""
