"""The driver process: it turns a configuration into problems, samples, training steps and a run folder."""
