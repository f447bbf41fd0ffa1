"""Weights of a run without a FID: a file named after its digest, in half precision."""

import hashlib
import json

import numpy as np
import preset_weights

from keras_sagan import SAGAN

PRESET = "sagan_photos_64"
SMALL = {"image_size": 8, "attention_resolutions": (), "base_filters": 4, "latent_dim": 3}


def test_weights_in_half_precision(tmp_path):
    model = SAGAN.from_preset(PRESET, **SMALL)
    model.steps.assign(7)
    model.save(tmp_path / "model.keras")
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"preset": PRESET}, "steps": 7}))
    preset_weights.main([str(tmp_path), "--half", "--output", str(tmp_path / "weights")])
    (path,) = (tmp_path / "weights").iterdir()
    prefix = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert path.name == f"{PRESET}-{prefix}.weights.h5"
    loaded = SAGAN.from_preset(PRESET, load_weights=path, **SMALL)
    assert int(loaded.steps.numpy()) == 7
    for half, whole in zip(loaded.weights, model.weights, strict=True):
        half, whole = half.numpy(), whole.numpy()
        assert half.dtype == whole.dtype
        if half.dtype == "float32":
            whole = whole.astype("float16").astype("float32")
        np.testing.assert_array_equal(half, whole)
