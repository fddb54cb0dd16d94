"""The trace: replays a sequence in an engine and in the trainer, and names the first op whose bits differ."""
