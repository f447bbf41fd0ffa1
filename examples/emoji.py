"""Trains a class-conditional SAGAN on color emoji, and scores it on emoji that it hasn't seen.

Command:   python examples/emoji.py [--data FOLDER]
Data:      about 1,850 emoji, each drawn in two styles, at 64 pixels on white, in nine categories;
           15 % of the concepts are held out. The archives are downloaded from the npm registry
           (90 MB), or read from FOLDER, where `npm pack` has put them:
               npm pack emoji-datasource-google@16.0.0 @lobehub/fluent-emoji-3d@1.1.0
Result:    runs/emoji/ with a sample grid per epoch (one row for each category), attention figures
           of both networks, training curves, the model, run.json with all settings, and
           report.json with the scores on held-out concepts, and memorization.json, which says
           whether training images were copied; runs/emoji_images/ has the images and LICENSES.txt.
           The guide "Color images: emoji" shows a recorded run
Licenses:  the data of both packages are under MIT; the drawings are Google's Noto Emoji
           (Apache-2.0) and Microsoft's Fluent Emoji (MIT)

This is `keras-sagan train --images` and `keras-sagan evaluate` with other defaults, and takes the
options of `keras-sagan train`, except `--grey`. Ctrl-C saves the run, and the same command resumes
it.
"""

import argparse
import os
import sys
from pathlib import Path

from keras_sagan import cli
from keras_sagan.cli.main import build_parser, words_of
from keras_sagan.data import load_emoji
from keras_sagan.visualization import save_image

TRAIN = """
    train --preset sagan_emoji_64 --labels-from-folders --epochs 10 --steps-per-epoch 500
    --fid-images 0
""".split()
# The classes are generated as often as they are in the reference. A set this small needs KID.
EVALUATE = """
    --labels-from-folders --labels reference --extractor efficientnet --metrics kid fid
""".split()
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
        + " ".join(TRAIN[1:]),
    )
    text = "the folder of the two archives; default: download them"
    parser.add_argument("--data", type=os.path.expanduser, help=text)
    parser.add_argument("--output", default="runs/emoji", help="the folder of the run")
    parser.add_argument("--num-images", default="1000", help="generated images for the scores")
    given, others = parser.parse_known_args(words_of(arguments))
    folder = Path(given.output).parent / "emoji_images"
    train = [*TRAIN, "--images", folder / "train", "--output", given.output, *others]
    evaluate = ["evaluate", given.output, *EVALUATE, "--num-images", given.num_images]
    evaluate += ["--images", folder / "held_out", "--held-out", folder / "train"]
    # Memorization needs all training images as its reference.
    memorization = [*evaluate, "--images", folder / "train", "--held-out", folder / "held_out"]
    memorization += ["--metrics", "memorization", "--output", f"{given.output}/memorization.json"]
    for command in (train, evaluate):  # Find wrong options before writing the images.
        if build_parser().parse_args(words_of(command)).grey:
            parser.error("--grey can't be given: the scores compare color images.")
    try:
        splits = {x: load_emoji(given.data, split=x) for x in ("train", "held_out")}
    except (OSError, ValueError) as error:
        sys.exit(f"emoji.py: {'--data: ' if given.data else ''}{error}")
    write_images(splits, folder)
    memorization += ["--num-images", len(splits["train"].images)]
    return cli.main(train) or cli.main(evaluate) or cli.main(memorization)


if __name__ == "__main__":
    sys.exit(main())
