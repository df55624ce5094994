"""Weights and settings on disk: written whole or not at all, and distrusted when read."""
