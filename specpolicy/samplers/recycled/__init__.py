"""This project's sampler: recycled evaluations, carried by a surrogate of the network."""
