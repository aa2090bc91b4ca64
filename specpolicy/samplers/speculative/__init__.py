"""Exact speculative samplers: the law of the sequential chain in a handful of batched calls."""
