"""Draws samples of the runs of small_data.py with 1,000 images, and looks for memorization.

Command:   python benchmarks/small_data_pictures.py --seed 1 --json \\
             --data_dir /usr/share/datasets/fashion-mnist
Measures   as small_data.py, how many samples are nearer to one of the 1,000 training images than to
           one of 1,000 test images; then the same for 1,000 other images in place of the training
           images, seven times: without memorization, the first value lies among the others
Needs      the checkpoints of these runs, which small_data.py leaves in runs/small_data
Result:    docs/images/few_images.png: a row of samples for each setting, one of each class;
           docs/images/few_images_neighbours.png: samples of the first setting in --rows beside
           their nearest training images;
           benchmarks/results/small_data_memorization.json
"""

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

COUNT, PARTS = 1000, 8


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


def nearer_shares(model, data_dir):
    """Returns the shares of samples that are nearer to 1,000 images than to 1,000 test images.

    The first share is of the training images, the others are of images that weren't trained on.
    """
    from keras_sagan import data
    from keras_sagan.metrics.memorization import nearest

    others = data.pad_to_32(data.load_fashion_mnist(data_dir, "train")[0][: PARTS * COUNT])
    images, labels = (x[:COUNT] for x in data.load_fashion_mnist())
    samples = small_data.features_of(model.generate(COUNT, labels, seed=0, batch_size=250))
    to_test = nearest(samples, small_data.features_of(data.pad_to_32(images)))[0]
    parts = (small_data.features_of(others[i : i + COUNT]) for i in range(0, len(others), COUNT))
    return [float(np.mean(nearest(samples, part)[0] < to_test)) for part in parts]


def main(arguments=None):
    from keras_sagan import metrics
    from keras_sagan.visualization import draw_neighbours, sample_grid, save_image

    parser = common.argument_parser(__doc__, "small_data_memorization")
    small_data.add_arguments(parser)
    parser.add_argument("--scratch", type=Path, default=Path("runs/small_data"))
    parser.add_argument("--output", type=Path, default=common.ROOT / "docs" / "images")
    parser.add_argument("--seed", type=int, default=0, help="of the runs")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    for name in ("base_filters", "steps"):
        parser.add_argument(f"--{name}", type=int, default=small_data.DEFAULTS[name])
    options = parser.parse_args(arguments)
    settings = small_data.DEFAULTS | {x: getattr(options, x) for x in ("base_filters", "steps")}
    pictures, shares = [], {}
    for row in reversed(options.rows):  # The first setting comes last, for its neighbors.
        name = f"garments_1000_{row}_{options.seed}"
        model, images = trained(name, options.data_dir, options.scratch, settings)
        pictures.insert(0, model.generate(10, labels=np.arange(10), seed=0))
        shares[name] = nearer_shares(model, options.data_dir)
    grid = sample_grid(np.concatenate(pictures), [ROWS[row] for row in options.rows])
    save_image(options.output / "few_images.png", grid)
    path = options.output / "few_images_neighbours.png"
    draw_neighbours(pictures[0][:5], images, path, metrics.GreyClassifierFeatures())
    words = small_data.without_folder(arguments)
    common.record(__file__, options.json, words, small_data.study.PACKAGES, nearer_shares=shares)


if __name__ == "__main__":
    main()
