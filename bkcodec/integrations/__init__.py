"""Adapters for engines that feed photos to training: one module each, which needs that engine."""
