"""Pixels to symbols and back: loading a model, running it, searching. Knows no container."""
