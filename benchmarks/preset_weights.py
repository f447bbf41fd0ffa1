"""Writes the trained weights of a preset from a finished run.

Command:   python benchmarks/preset_weights.py runs/fashion_mnist
           python benchmarks/preset_weights.py runs/emoji --half --output examples/weights
Result:    a file with both networks, the averaged generator and the step count. The weights of a
           run with a FID ship with the package: keras_sagan/models/weights/PRESET.weights.h5, and
           PRESET.json with their SHA-256 and the run's record. The file of any other run is called
           PRESET-DIGEST.weights.h5, after the first digits of its SHA-256
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

import common  # noqa: F401 - sets TensorFlow's flags before it is imported.
import h5py
import keras

from keras_sagan.models import pretrained


def halve(path):
    """Stores all float32 arrays of an HDF5 file in float16."""
    whole = path.with_name("whole.h5")
    path.rename(whole)
    with h5py.File(whole) as source, h5py.File(path, "w") as target:

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                dtype = "float16" if item.dtype == "float32" else item.dtype
                target.create_dataset(name, data=item[()].astype(dtype))
            else:
                target.require_group(name)
            target[name].attrs.update(item.attrs)

        source.visititems(copy)
        target.attrs.update(source.attrs)
    whole.unlink()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a run of `keras-sagan train`")
    parser.add_argument("--half", action="store_true", help="store float32 arrays in float16")
    parser.add_argument("--output", type=Path, default=pretrained.RECORDS)
    settings = parser.parse_args(arguments)
    record = json.loads((settings.run / "run.json").read_text(encoding="utf-8"))
    model = keras.saving.load_model(settings.run / "model.keras", compile=False)
    name = record["settings"]["preset"]
    settings.output.mkdir(parents=True, exist_ok=True)
    path = settings.output / f"{name}.weights.h5"
    model.save_weights(path)
    if settings.half:
        halve(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if "fid" in record:
        kept = {
            "sha256": digest,
            "command": re.sub(r" --output[ =]\S+", "", record["command"]),
            "steps": record["steps"],
            "fid": record["fid"]["end"],
            "protocol": record["fid"]["protocol"],
        }
        text = json.dumps(kept, indent=2) + "\n"
        path.with_name(f"{name}.json").write_text(text, encoding="utf-8")
    else:
        path = path.rename(path.with_name(f"{name}-{digest[:8]}.weights.h5"))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
