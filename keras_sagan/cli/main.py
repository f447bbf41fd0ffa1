"""Parses the command line, whose options are in `keras_sagan.options`, and runs the commands."""

import argparse
import importlib
import importlib.util
import os
import re
import sys

from keras_sagan import options, quiet
from keras_sagan.log import Log
from keras_sagan.version import __version__

EPILOG = """Example with the images that ship with the package:

  keras-sagan train --output runs/first
  keras-sagan sample runs/first
  keras-sagan attention runs/first
  keras-sagan evaluate runs/first --num-images 5000
  keras-sagan export runs/first --formats saved_model

Run `keras-sagan COMMAND --help` for the options of a command."""
COMMANDS = {
    "train": (options.TRAIN, "Trains a model; the same command again resumes a stopped run."),
    "sample": (options.SAMPLE, "Draws samples of a trained model, or interpolates between them."),
    "attention": (options.ATTENTION, "Draws where the generator or the discriminator looks."),
    "evaluate": (options.EVALUATE, "Measures a model, or a folder of images, against real images."),
    "export": (options.EXPORT, "Exports the generator for other runtimes, and checks each file."),
}


def main(arguments: list[str] | None = None, defaults: dict | None = None) -> int:
    """Runs a command and returns the exit code: 0, 1 after an error, or 130 after Ctrl-C.

    An error is reported on one line, with the path of a log that contains the traceback. The log is
    `keras_sagan.log` in the folder of the run, or a file in the temporary folder if there is no
    run. `arguments` defaults to the command-line arguments. `defaults` replaces defaults of
    `train`; the file of `--config` overrides them.
    """
    arguments = words_of(arguments)
    log = Log(["keras-sagan", *arguments])
    try:
        settings = settings_of(arguments, defaults)
        select_backend(settings["backend"])
        # Import Keras only now, so that `--help` is fast and `--backend` works.
        commands = importlib.import_module("keras_sagan.cli.commands")
        with log.with_warnings():
            commands.run(log, settings)
    except KeyboardInterrupt as error:
        log.write(text := f"Stopped{error}.")
        print(f"\n{text}", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("KERAS_SAGAN_TRACEBACK"):
            raise
        print(f"keras-sagan: {log.failed(error)}", file=sys.stderr)
        return 1
    return 0


def words_of(arguments: list | None) -> list[str]:
    """Returns the command-line arguments as strings; `--base_filters` becomes `--base-filters`."""
    words = map(str, sys.argv[1:] if arguments is None else arguments)
    return [re.sub(r"^--\w+", lambda x: x[0].replace("_", "-"), word) for word in words]


def settings_of(arguments: list, defaults: dict | None = None) -> dict:
    """Parses a command's arguments, and reads the file that `--config` names."""
    words = words_of(arguments)
    settings = vars(build_parser(defaults).parse_args(words))
    if settings.get("config"):
        defaults = {**(defaults or {}), **options.read_config(settings["config"])}
        settings = vars(build_parser(defaults).parse_args(words))
    return settings


def build_parser(defaults=None):
    """Returns the parser for all commands; `defaults` replaces defaults of `train`."""
    parser = argparse.ArgumentParser(
        prog="keras-sagan",
        description="Trains Self-Attention GANs, and shows and measures what they learned.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"keras_sagan {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (_, text) in COMMANDS.items():
        short = text[0].lower() + text[1:].rstrip(".")
        fill(command := commands.add_parser(name, help=short, description=text), name)
        if name == "train":
            command.set_defaults(**defaults or {})
    return parser


def fill(parser, name):
    """Adds the arguments of a command to a parser."""
    if name == "train":
        text = "a JSON file of these options, such as the run.json of a run"
        parser.add_argument("--config", type=os.path.expanduser, metavar="FILE", help=text)
    else:
        text, count = "the folder of a run, or a .keras file", "?" if name == "evaluate" else None
        parser.add_argument("run", nargs=count, type=os.path.expanduser, help=text)
    options.add_options(parser, COMMANDS[name][0])


def select_backend(name):
    """Imports Keras with a backend; fails if the backend is missing or Keras uses another one."""
    if name is not None and "keras" not in sys.modules:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"--backend {name} needs a package. Run: pip install {name}")
        os.environ["KERAS_BACKEND"] = name
    quiet.import_quietly()
    options.check_backend(name)
