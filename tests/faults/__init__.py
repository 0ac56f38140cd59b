"""Accidents, staged: kills, full and read-only disks, interrupts, races, big batches.

``python -m tests.faults NAME [COUNT]`` runs one module's ``fault(folder, count)``: it fails with an
AssertionError if something was lost, and returns what happened.
"""
