"""Shipped Hydra configuration, importable so that it also works from an installed wheel."""
