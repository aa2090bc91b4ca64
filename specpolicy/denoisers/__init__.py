"""Denoisers made of networks that were trained for something else than the noise of a diffusion chain, or for more."""
