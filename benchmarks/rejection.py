"""Does selecting samples by the discriminator's logits lower the FID of the main job's model?

Command:   python benchmarks/rejection.py --json
Measures   the Fréchet distance of as many samples by each method of `generate`, in turn, against
           the 5,000 training images that the main job compares with: first with the discriminator
           as it was trained, then after `--finetune` steps of it alone with the non-saturating
           loss, against the averaged generator
Result:    benchmarks/results/rejection.json and a table, about 7 minutes on 2 CPU cores
"""

import time

import common
import keras
import numpy as np

from keras_sagan import SAGAN, FrechetInceptionDistance, data
from keras_sagan.metrics import GreyClassifierFeatures

PRESET, GOAL = "sagan_fashion_mnist_32", 0.95  # The goal for rejection, in times of plain samples.
METHODS = {
    "none": {},
    "rejection": {"method": "rejection"},
    "top": {"method": "top"},
}


def measure(model, real, num_images, seed, finetuned=0):
    """Rows of a table: one for each method."""
    metric = FrechetInceptionDistance(GreyClassifierFeatures(), batch_size=250)
    metric.verbose = False
    metric.update_state(real, real=True)
    labels, rows = np.arange(num_images) % model.num_classes, []
    for name, arguments in METHODS.items():
        start = time.perf_counter()
        images, details = model.generate(
            num_images, labels, seed, batch_size=250, return_details=True, **arguments
        )
        seconds = time.perf_counter() - start
        metric.reset_state(reset_real=False)
        metric.update_state(images, real=False)
        fid = float(metric.result())
        rows.append(
            {
                "finetuned": finetuned,
                "method": name,
                "fid": common.rounded(fid),
                "times_plain": common.rounded(fid / rows[0]["fid"] if rows else 1.0, 3),
                "acceptance_rate": common.rounded(details["acceptance_rate"], 3),
                "seconds": common.rounded(seconds, 3),
            }
        )
    return rows


def finetune(model, images, labels, steps):
    """Trains the discriminator alone, so that its logits estimate a ratio of densities."""
    weights = model.ema_generator.get_weights()
    model.generator.set_weights(weights)
    adam = keras.optimizers.Adam(4e-4, beta_1=0.0, beta_2=0.99)
    model.compile(keras.optimizers.SGD(0.0), adam, loss="non_saturating")
    dataset = data.make_dataset(images, labels, batch_size=min(64, len(images)), seed=1)
    model.fit(dataset, steps_per_epoch=steps, verbose=0)
    model.ema_generator.set_weights(weights)  # Its moving statistics have moved.


def main(arguments=None):
    parser = common.argument_parser(__doc__, "rejection")
    parser.add_argument("--num_images", type=int, default=5000)
    parser.add_argument("--finetune", type=int, default=1000, help="steps of the discriminator")
    settings = parser.parse_args(arguments)
    model = SAGAN.from_preset(PRESET, load_weights=True, d_steps=1, seed=0)
    images, labels = data.load_fashion_mnist()
    images = data.pad_to_32(images)
    real = images[data.spread_indices(5000, len(images))]
    rows = measure(model, real, settings.num_images, seed=0)
    finetune(model, images, labels, settings.finetune)
    rows += measure(model, real, settings.num_images, seed=0, finetuned=settings.finetune)
    common.print_table(rows)
    results = {"preset": PRESET, "num_images": settings.num_images, "goal": GOAL, "rows": rows}
    return common.record(__file__, settings.json, arguments, **results)


if __name__ == "__main__":
    main()
