"""Processes that the kernel confines, for code and text that nobody has read."""
