"""Images as PNG and back, as LeRobot keeps them in parquet files. Needs the extra `data`."""

import io

import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import one_line

MOST_PIXELS = 4096**2  # of a picture of someone else's


def to_png(image: np.ndarray) -> bytes:
    """An image (H, W, 3) uint8, packed without loss."""
    from PIL import Image

    packed = io.BytesIO()
    Image.fromarray(image).save(packed, format="PNG", compress_level=4)
    return packed.getvalue()


def from_picture(packed: bytes, where: str) -> np.ndarray:
    """The image (H, W, 3) uint8 of a PNG or JPEG file, turned as it says.

    Raises:
        SpecpolicyError: it is neither, is damaged, says that it is very large, or has more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    try:
        # Only these two: other readers of the library start programs, or read what the file names.
        with Image.open(io.BytesIO(packed), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise SpecpolicyError(f"{where} is an image of {picture.width} x {picture.height} pixels: too large")
            if picture.mode.startswith(("I", "F")):  # such as a map of depths; its conversion cuts off all above 255
                raise SpecpolicyError(f"{where} is an image of mode {picture.mode}: 8 bits a channel are read")
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except SpecpolicyError:
        raise
    except Exception as error:  # a damaged picture shows in many ways
        raise SpecpolicyError(f"{where} is no readable PNG or JPEG image ({one_line(error)})") from None
