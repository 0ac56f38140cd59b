"""Tar shards: some members become others, all else stays byte for byte. Knows no codec.

A data set in WebDataset's layout is a row of tar files ("shards"). Members that follow one another
and share a stem (``0001.jpg``, ``0001.json``) are one sample.
"""
