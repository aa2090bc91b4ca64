"""Show two samplers in the same episode of an evaluation, side by side, as an animated picture.

    python scripts/demo_picture.py <the evaluation's directory> out.gif ddpm recycled-16

It shows the filmed seed at which the right sampler succeeds soonest and the left one fails. If there is none, it shows
one at which the right one succeeds, else the first.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imageio
import numpy as np
from PIL import Image, ImageDraw

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path

SECONDS_AFTER = 1.0  # shown after the success
EVERY = 2  # one of this many video frames is shown
CAPTION = 20  # rows of pixels
SHOWN = 0.75  # share of a frame's height; below it there is only the table
COLOURS = 64

Film = tuple[list[Any], float]  # frames (H, W, 3) uint8, and frames per second


def read_film(path: Path) -> Film:
    with imageio.get_reader(path) as reader:
        frames = [np.asarray(frame) for frame in reader]
        return frames, float(reader.get_meta_data()["fps"])  # type: ignore[attr-defined]


def choose_seed(left: Mapping[int, bool], right: Mapping[int, bool], lengths: Mapping[int, int]) -> int:
    """Choose the seed to show, see the module's docstring.

    Args:
        left, right: success by seed.
        lengths: number of frames of the right sampler's videos, by seed.

    Raises:
        SpecpolicyError: no seed was filmed with both.
    """
    seeds = [seed for seed in right if seed in left]
    if not seeds:
        raise SpecpolicyError("no seed was filmed with both samplers")
    return min(seeds, key=lambda seed: (not right[seed], left[seed], lengths[seed] if right[seed] else seed))


def side_by_side(films: Sequence[Sequence[Any]], captions: Sequence[str]) -> list[Image.Image]:
    """Return the pictures; the shorter video stays at its last frame."""
    pictures = []
    for number in range(max(map(len, films))):
        frames = [film[min(number, len(film) - 1)] for film in films]
        frames = [frame[: round(SHOWN * len(frame))] for frame in frames]
        height, width = len(frames[0]), frames[0].shape[1]
        picture = Image.new("RGB", (width * len(frames), height + CAPTION), "white")
        draw = ImageDraw.Draw(picture)
        for place, (frame, caption) in enumerate(zip(frames, captions, strict=True)):
            picture.paste(Image.fromarray(frame), (place * width, CAPTION))
            draw.text((place * width + 6, 4), caption, fill="black")
        pictures.append(picture.quantize(COLOURS, dither=Image.Dither.NONE))
    return pictures


def write(output: Path, out: Path, samplers: Sequence[str]) -> str:
    """Write the animated picture of an evaluation and return a line about it."""
    conditions = {
        condition["sampler"]: condition
        for condition in json.loads((output / "summary.json").read_text(encoding="utf-8"))["conditions"]
    }
    found = [{video["seed"]: video for video in conditions[sampler]["videos"]} for sampler in samplers]
    rights = {seed: read_film(output / video["path"]) for seed, video in found[1].items()}
    outcomes = [{seed: bool(video["success"]) for seed, video in videos.items()} for videos in found]
    seed = choose_seed(outcomes[0], outcomes[1], {seed: len(frames) for seed, (frames, _) in rights.items()})
    right, fps = rights[seed]
    left, _ = read_film(output / found[0][seed]["path"])
    captions = []
    for sampler, outcome in zip(samplers, outcomes, strict=True):
        taken = 1000 * conditions[sampler]["chunk_seconds"]["p50"]
        captions.append(f"{sampler}, {taken:.0f} ms a chunk: {'solved' if outcome[seed] else 'not solved'}")
    end = round(len(right) + SECONDS_AFTER * fps)
    first, *others = side_by_side([film[:end:EVERY] for film in (left, right)], captions)
    with atomic_path(out) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=round(1000 * EVERY / fps), loop=0)
    return f"picture: {out} (seed {seed}; {'; '.join(captions)})"


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:5]))
