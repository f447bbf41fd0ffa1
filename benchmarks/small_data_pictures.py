"""Draws samples of the runs of small_data.py with 1,000 images, for the guide.

Command:   python benchmarks/small_data_pictures.py --seed 1 \\
             --data_dir /usr/share/datasets/fashion-mnist
Needs      the checkpoints of these runs, which small_data.py leaves in runs/small_data
Result:    docs/images/few_images.png: a row of samples for each setting, one of each class;
           docs/images/few_images_neighbours.png: samples of the first setting in --rows beside
           their nearest training images
"""

import argparse
from pathlib import Path

import common
import numpy as np
import small_data

ROWS = {
    "relativistic_without": "relativistic",
    "hinge_without": "hinge",
    "hinge_with": "hinge, augmented",
    "relativistic_with": "relativistic, augmented",
}


def trained(name, data_dir, scratch, settings):
    """Returns the model of a finished run, and its training images."""
    from keras_sagan import callbacks

    run = small_data.all_runs(3)[name]
    images, _ = small_data.training_images(run, settings, data_dir)
    model = small_data.build(run, settings)
    folder = scratch / "checkpoints" / name
    if callbacks.TrainingCheckpoint(folder).restore_latest(model) != settings["steps"]:
        raise ValueError(f"--scratch must have the finished run {name}. Received: {scratch}")
    return model, images


def main(arguments=None):
    from keras_sagan import metrics
    from keras_sagan.visualization import draw_neighbours, sample_grid, save_image

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    small_data.add_arguments(parser)
    parser.add_argument("--scratch", type=Path, default=Path("runs/small_data"))
    parser.add_argument("--output", type=Path, default=common.ROOT / "docs" / "images")
    parser.add_argument("--seed", type=int, default=0, help="of the runs")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    for name in ("base_filters", "steps"):
        parser.add_argument(f"--{name}", type=int, default=small_data.DEFAULTS[name])
    options = parser.parse_args(arguments)
    settings = small_data.DEFAULTS | {x: getattr(options, x) for x in ("base_filters", "steps")}
    pictures = []
    for row in reversed(options.rows):  # The first setting comes last, for its neighbors.
        name = f"garments_1000_{row}_{options.seed}"
        model, images = trained(name, options.data_dir, options.scratch, settings)
        pictures.insert(0, model.generate(10, labels=np.arange(10), seed=0))
    grid = sample_grid(np.concatenate(pictures), [ROWS[row] for row in options.rows])
    save_image(options.output / "few_images.png", grid)
    path = options.output / "few_images_neighbours.png"
    draw_neighbours(pictures[0][:5], images, path, metrics.GreyClassifierFeatures())


if __name__ == "__main__":
    main()
