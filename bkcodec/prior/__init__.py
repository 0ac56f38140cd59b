"""Symbols to strings and back, exact in integers. No PyTorch in here."""
