"""Size of the images of demonstrations in a file, and the time to write them and to read a window of them.

    python benchmarks/image_files.py

Records one demonstration of each task, 84 x 84. Prints for each storage format: size as a share of the raw bytes, ms to
write an image, and ms to read two neighbouring images (a window) that have not been read recently.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from specpolicy.data.png import from_picture, to_png
from specpolicy.data.recorder import Recorder, Recording

TASKS = {"push_t": ("specpolicy/PushT-v0", ["top"]), "lift": ("specpolicy/Lift-v0", ["agentview"])}
WINDOWS = 300
HDF5: dict[str, tuple[int, dict[str, Any]]] = {  # images per HDF5 chunk, options
    "HDF5, as they are": (1, {}),
    "HDF5, lzf": (1, {"compression": "lzf"}),
    "HDF5, gzip (collect)": (1, {"compression": "gzip"}),
    "HDF5, gzip, 8 in one": (8, {"compression": "gzip"}),
}


def recorded(env_id: str, cameras: list[str]) -> np.ndarray:
    """Return the images of one demonstration."""
    recorder = Recorder(Recording(json.dumps({"id": env_id, "cameras": cameras}), 0.15, 0, 30.0))
    images = recorder.record(0).observations[f"{cameras[0]}_image"]
    recorder.close()
    return images


def milliseconds(call: Callable[[int], object], count: int) -> float:
    """Return the mean time of a call, each with another position."""
    places = np.random.default_rng(0).integers(0, count - 1, WINDOWS)
    start = time.perf_counter()
    for place in places:
        call(int(place))
    return 1e3 * (time.perf_counter() - start) / WINDOWS


def main() -> None:
    """Print the table."""
    print("| task | kept as | size | write | read |\n|---|---|---|---|---|")
    for name, (env_id, cameras) in TASKS.items():
        images = recorded(env_id, cameras)
        for kept, (together, options) in HDF5.items():
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "images.hdf5"
                start = time.perf_counter()
                with h5py.File(path, "w") as file:
                    file.create_dataset("images", data=images, chunks=(together, *images.shape[1:]), **options)
                write = 1e3 * (time.perf_counter() - start) / len(images)
                with h5py.File(path, rdcc_nbytes=0) as file:  # no cache of unpacked images
                    data = file["images"]
                    read = milliseconds(lambda place, data=data: data[place : place + 2], len(images))  # type: ignore[misc]
                size = path.stat().st_size / images.nbytes
            print(f"| {name} | {kept} | {size:.3f} | {write:.2f} | {read:.2f} |", flush=True)
        start = time.perf_counter()
        packed = [to_png(image) for image in images]
        write = 1e3 * (time.perf_counter() - start) / len(images)
        read = milliseconds(
            lambda place, all=packed: [from_picture(one, "") for one in all[place : place + 2]], len(images)
        )  # type: ignore[misc]
        size = sum(map(len, packed)) / images.nbytes
        print(f"| {name} | PNG (LeRobot) | {size:.3f} | {write:.2f} | {read:.2f} |", flush=True)


if __name__ == "__main__":
    main()
