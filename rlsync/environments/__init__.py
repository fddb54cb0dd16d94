"""Environments, which answer the model between its turns, and the conversations with them."""
