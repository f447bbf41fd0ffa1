"""Options that several commands have."""

import argparse
import os
from pathlib import Path


def positive_integer(text):
    """The type of an option that counts something."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text}")
    return value


def add_run(parser, nargs=None):
    parser.add_argument(
        "run", nargs=nargs, type=os.path.expanduser, help="the folder of a run, or a .keras file"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", default=0, help="the same number draws the same latents"
    )


def add_inception(parser):
    text = "a copy of TF-GAN's Inception, for colour or large images; default: TF-Hub's"
    parser.add_argument("--inception", type=os.path.expanduser, metavar="DIR", help=text)
    text = "the digest of its files: nothing is downloaded without"
    parser.add_argument("--inception-sha256", metavar="HEX", help=text)


def add_truncation(parser):
    text = "latents beyond it are drawn again: less variety, more typical images"
    parser.add_argument("--truncation", type=float, metavar="X", help=text)


def beside(run):
    """The folder that the pictures of a run go to."""
    return Path(run) if os.path.isdir(run) else Path(run).parent
