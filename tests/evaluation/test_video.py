"""Videos: the smallest one, and an encoder that writes nothing."""

import imageio
import numpy as np
import pytest

from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.video import video_writer


def test_the_smallest_video_has_frames(tmp_path):
    with video_writer(tmp_path / "small.mp4", 10) as write:
        for shade in (0, 255):
            write(np.full((2, 3, 3), shade, np.uint8))
    assert len(imageio.mimread(tmp_path / "small.mp4")) == 2


def test_a_video_without_content_is_no_video(tmp_path, monkeypatch):
    class Ended:
        """An encoder that has ended without a word."""

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            return None

        def append_data(self, frame):
            pass

    monkeypatch.setattr(imageio, "get_writer", lambda *arguments, **options: Ended())
    with (
        pytest.raises(SpecpolicyError, match=r"film\.mp4 cannot be written: the encoder has made no video"),
        video_writer(tmp_path / "film.mp4", 10) as write,
    ):
        write(np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())
