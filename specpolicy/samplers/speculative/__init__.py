"""Exact speculative samplers: the distribution of the sequential chain in a handful of batched calls."""
