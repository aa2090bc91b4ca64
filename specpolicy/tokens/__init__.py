"""Action tokens: tokenisers, the decoders of masked-diffusion policies, and exact speculative decoding for them."""

from specpolicy.tokens.graph import DraftGraph, GraphDrafter, analytic_graph
from specpolicy.tokens.lookahead import ChainDrafter, FixedPointDrafter
from specpolicy.tokens.ordinary import Decoded, decode, masked_start
from specpolicy.tokens.rules import DecodingNoise, Rule, cosine_counts, fixed_counts
from specpolicy.tokens.speculative import Drafter, Round, speculate

__all__ = [
    "ChainDrafter",
    "Decoded",
    "DecodingNoise",
    "DraftGraph",
    "Drafter",
    "FixedPointDrafter",
    "GraphDrafter",
    "Round",
    "Rule",
    "analytic_graph",
    "cosine_counts",
    "decode",
    "fixed_counts",
    "masked_start",
    "speculate",
]
