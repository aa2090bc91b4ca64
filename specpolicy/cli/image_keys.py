"""Which observations a policy learns from: vectors, or images and the vectors beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.data.dataset import Sequences
    from specpolicy.policy.config import PolicyOptions

SUFFIX = "_image"  # of a camera's name: the key of its images


def keys_to_read(config: DictConfig, chosen: PolicyOptions) -> tuple[list[str], list[str]]:
    """The keys of the data that a policy is to learn from, and those of them that are images.

    A policy without images takes task.observation_keys, or every vector of the data. One with images takes those of
    task.cameras, or all of the data, and the vectors task.proprioception; or exactly task.observation_keys, if an image
    is among them.

    Raises:
        SpecpolicyError: an image policy where the data have no images, or a policy without where cameras are named.
    """
    from specpolicy.data.dataset import image_keys, observation_keys

    named, cameras = list(config.task.get("observation_keys") or ()), list(config.task.get("cameras") or ())
    if chosen.vision is None:
        if cameras:
            raise SpecpolicyError(
                f"policy={chosen.name} sees no images, and task.cameras={cameras} gives some: use policy=unet_image, "
                "or leave task.cameras out"
            )
        return named or observation_keys(config.data), []
    there = image_keys(config.data)
    if not there:
        raise SpecpolicyError(
            f"policy={chosen.name} sees images, and {config.data} has none: record some with 'specpolicy collect "
            "task.cameras=[...]', or use policy=unet"
        )
    images = [key for key in named if key in there]
    if images and not cameras:
        return named, images
    images = [f"{camera}{SUFFIX}" for camera in cameras] or there
    for key in images:
        if key not in there:
            raise SpecpolicyError(
                f"task.cameras: {config.data} has no images '{key}', it has {', '.join(there)}: name others, or none "
                "to take all"
            )
    vectors = config.task.get("proprioception")
    if vectors is None:
        vectors = [key for key in named or observation_keys(config.data) if key not in there]
    return [*vectors, *images], images


def task_with_cameras(config: DictConfig, training: Sequences) -> dict[str, Any]:
    """The task, with the cameras and the size of the images that a policy learns from, as it will be played.

    Raises:
        SpecpolicyError: task.cameras is given, with another size than the images have.
    """
    task: Any = OmegaConf.to_container(config.task, resolve=True)
    sizes = {key: list(images.size[:2]) for key, images in training.images.items()}
    if task.get("cameras"):
        for key, size in sizes.items():
            if size != list(task.get("camera_size") or size):
                raise SpecpolicyError(
                    f"the images '{key}' of {config.data} have {size[0]} x {size[1]} pixels: set "
                    f"task.camera_size=[{size[0]},{size[1]}], or record others"
                )
    elif sizes and str(task["id"]).startswith("specpolicy/") and all(key.endswith(SUFFIX) for key in sizes):
        task |= {"cameras": [key.removesuffix(SUFFIX) for key in sizes], "camera_size": next(iter(sizes.values()))}
    return task
