"""The benchmark: real files, fresh decoders, peers in the same run, one report."""
