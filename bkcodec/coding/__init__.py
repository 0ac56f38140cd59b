"""Pixels to symbols and back: a model at work on a device, in tiles. Knows no container."""
