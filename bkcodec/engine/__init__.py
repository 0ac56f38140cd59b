"""Integer networks as data, and what runs them: the same integers from every backend."""
