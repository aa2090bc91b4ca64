"""Record demonstrations of a task's scripted expert in robomimic's HDF5 layout."""

from omegaconf import DictConfig


def run(config: DictConfig) -> None:
    """Collect and write the demonstrations."""
    raise NotImplementedError
