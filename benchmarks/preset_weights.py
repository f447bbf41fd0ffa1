"""Writes the trained weights of a preset, as they ship with the package, from a finished run.

Command:   python benchmarks/preset_weights.py runs/fashion_mnist
Result:    keras_sagan/models/weights/PRESET.weights.h5 with both networks, the averaged generator
           and the step count in float32, and PRESET.json with its SHA-256 and the run's record
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

import common  # noqa: F401 - sets TensorFlow's flags before it is imported.
import keras

from keras_sagan.models import pretrained


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a run of `keras-sagan train`")
    parser.add_argument("--output", type=Path, default=pretrained.RECORDS)
    settings = parser.parse_args(arguments)
    record = json.loads((settings.run / "run.json").read_text(encoding="utf-8"))
    model = keras.saving.load_model(settings.run / "model.keras", compile=False)
    name = record["settings"]["preset"]
    path = settings.output / f"{name}.weights.h5"
    model.save_weights(path)
    kept = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "command": re.sub(r" --output[ =]\S+", "", record["command"]),
        "steps": record["steps"],
        "fid": record["fid"]["end"],
        "protocol": record["fid"]["protocol"],
    }
    text = json.dumps(kept, indent=2) + "\n"
    path.with_name(f"{name}.json").write_text(text, encoding="utf-8")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
