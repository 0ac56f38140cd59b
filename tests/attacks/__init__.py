"""Attempts to abuse the program, one file each; ``python -m tests.attacks`` tries them all.

Each module says in its docstring what it proves and has one function, ``attack(folder)``: it fails
with an AssertionError if the abuse succeeds, and returns what happened instead.
"""
