"""Processes that the kernel confines, for untrusted code and text."""
