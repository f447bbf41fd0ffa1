import numpy as np
import pytest

from keras_sagan.visualization import save_gif

Image = pytest.importorskip("PIL.Image")


def frames_of(path):
    with Image.open(path) as picture:
        for index in range(picture.n_frames):
            picture.seek(index)
            yield np.asarray(picture.convert("RGB")), picture.info["duration"]


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3)])
def test_every_frame_is_there_with_its_time(tmp_path, shape):
    values = np.random.default_rng(0).integers(0, 256, (4, *shape), "uint8")
    save_gif(tmp_path / "new" / "a.gif", values, seconds=0.2, last_seconds=0.5)
    found = list(frames_of(tmp_path / "new" / "a.gif"))
    assert [time for _, time in found] == [500, 200, 200, 200]
    for (pixels, _), frame in zip(found, [values[-1], *values[:-1]]):  # The last one comes first.
        grey = frame.reshape(5, 6, -1)
        np.testing.assert_array_equal(pixels, np.broadcast_to(grey, (5, 6, 3)))
    with Image.open(tmp_path / "new" / "a.gif") as picture:
        assert picture.info["loop"] == 0


def test_bad_frames_and_times(tmp_path):
    path, frame = tmp_path / "a.gif", np.zeros((4, 4), "uint8")
    with pytest.raises(ValueError, match="`frames` must have the same shape"):
        save_gif(path, [frame, np.zeros((4, 5), "uint8")])
    with pytest.raises(ValueError, match="`frames` must be uint8"):
        save_gif(path, [frame / 2.0])
    with pytest.raises(ValueError, match="`frames` must hold at least one image"):
        save_gif(path, np.zeros((0, 4, 4), "uint8"))
    for name in ("seconds", "last_seconds"):
        with pytest.raises(ValueError, match=f"`{name}` must be positive. Received: {name}=0"):
            save_gif(path, [frame], **{name: 0})
