"""Trains a SAGAN on any folder of images, with or without classes.

Command:   python examples/image_folder.py --images DIR [--labels-from-folders]
Data:      all images in DIR and its subfolders, center-cropped and resized to --image-size, a
           power of two from 8 to 1024; unreadable images are listed, other files are counted
Result:    runs/image_folder/ with a sample grid per epoch, a GIF of them, attention figures of both
           networks, curves, the model, and run.json with all settings and scores

This is `keras-sagan train --images DIR` with a different folder for the results. `--help` lists all
options, and the same command resumes a stopped run.
"""

import sys

from keras_sagan import cli


def main(arguments=None):
    arguments = sys.argv[1:] if arguments is None else arguments
    if not any(str(x).split("=")[0] in ("--images", "--config", "-h", "--help") for x in arguments):
        sys.exit("Give --images DIR, the folder of images; --help lists all options.")
    return cli.main(["train", *arguments], {"output": "runs/image_folder"})


if __name__ == "__main__":
    sys.exit(main())
