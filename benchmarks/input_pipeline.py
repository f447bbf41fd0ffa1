"""Does the input pipeline keep ahead of the training step?

Command:   python benchmarks/input_pipeline.py --json
Measures   `load_tfds` on stored JPEGs like ImageNet's, in turn with plain `tf.data` that gives
           the same images, against the training step of sagan_imagenet_128 on the same machine in
           the same run, and against the most that a TPU core and a GPU could ask for by their
           specifications
Result:    benchmarks/results/input_pipeline.json and the tables of
           benchmarks/logs/performance.md; about 5 minutes on 2 CPU cores

The images are synthetic: 500 x 375 pixels with the 1/f spectrum of photographs and sensor noise,
106 kB each as JPEG (quality 90, chroma at half resolution), in TFDS's own files. The
pipeline does all that training asks of it: reading, checksums, shuffling, decoding, the central
square, anti-aliased resizing to 128 pixels, batches. A core's share is counted in CPU time, which
other processes on the machine hardly change.
"""

import functools
import io
import json
import statistics
import tempfile
import time

import common
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import keras_sagan
from keras_sagan.data import load_tfds, make_dataset

HEIGHT, WIDTH, QUALITY, NOISE = 375, 500, 90, 4.0
NAME, SIZE, BATCH = "synthetic_photographs", 128, 64
# The training step as the TPU compiler counts it, and published peaks: FLOP/s in bfloat16 and
# bytes/s of memory, https://cloud.google.com/tpu/docs/v5e (one core a chip) and
# https://www.nvidia.com/en-us/data-center/a100/ (80 GB SXM, dense).
STEP_RECORD = common.RESULTS / "tpu_compile_sagan_imagenet_128_official_v5e_bfloat16.json"
CHIPS = {"TPU v5e": (197e12, 819e9), "A100 80 GB": (312e12, 2039e9)}


def photograph(rng):
    """An image whose amplitudes fall with frequency as in photographs, and sensor noise."""
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = 1.0

    def field():
        white = np.fft.rfft2(rng.standard_normal((HEIGHT, WIDTH)))
        values = np.fft.irfft2(white / frequency**1.1, s=(HEIGHT, WIDTH))
        return values / values.std()

    colours = np.stack([field() for _ in range(3)], -1)
    image = 118.0 + 50.0 * field()[..., None] + 14.0 * colours
    image += NOISE * rng.standard_normal(image.shape)
    return np.clip(image, 0, 255).astype("uint8")


def examples(count):
    rng = np.random.default_rng(0)
    for index in range(count):
        buffer = io.BytesIO()
        Image.fromarray(photograph(rng)).save(buffer, "JPEG", quality=QUALITY)
        buffer.seek(0)
        yield index, {"file_name": f"{index}.JPEG", "image": buffer, "label": index % 1000}


def store_photographs(count, folder):
    """Stores JPEGs like ImageNet's in the files that TFDS makes of them."""
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name=NAME,
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "file_name": tfds.features.Text(),
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=1000),
            }
        ),
        split_datasets={"train": examples(count)},
        data_dir=folder,
        download_config=tfds.download.DownloadConfig(num_shards=16),
    )
    return builder.info.splits["train"].num_bytes / count


def measured(images, function):
    """Images per second, and per second of one core's time, while a function runs."""
    seconds, core_seconds = time.perf_counter(), time.process_time()
    function()
    seconds, core_seconds = time.perf_counter() - seconds, time.process_time() - core_seconds
    return {"per_second": images / seconds, "per_core_second": images / core_seconds}


def medians(runs):
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def textbook(folder):
    """The same as TensorFlow's guides have it, without an order that can be found again."""

    def prepare(example):
        image = example["image"]
        side = tf.reduce_min(tf.shape(image)[:2])
        image = tf.image.resize_with_crop_or_pad(image, side, side)
        image = tf.image.resize(image, (SIZE, SIZE), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), "uint8"), example["label"]

    stored = tfds.load(NAME, split="train", data_dir=folder, shuffle_files=True)
    examples = stored.repeat().shuffle(256).map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return examples.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def check_agreement(pipelines, count):
    """Raises unless pipelines give the same images, found by their labels, to a grey level."""
    found = []
    for dataset in pipelines.values():
        batches = dataset.take(4 * -(-count // BATCH)).as_numpy_iterator()
        found.append({label: image for batch in batches for image, label in zip(*batch)})
    shared = set(found[0]) & set(found[1])
    differences = [np.ptp([np.int16(x[label]) for x in found], axis=0).max() for label in shared]
    if len(shared) < min(count, 1000) / 2 or max(differences) > 1:
        raise RuntimeError(
            "The pipelines must give the same images. "
            f"Received: {len(shared)} in both, differences up to {max(differences, default=None)}"
        )


def product(folder):
    settings = {"image_size": SIZE, "batch_size": BATCH, "shuffle_buffer": 256}
    return load_tfds(NAME, data_dir=folder, **settings)[0]


FORMS = {"pipeline": product, "textbook": textbook}


def peak(form, folder, batches):
    """Bytes that a pipeline takes at its peak."""
    return common.peak_of(lambda: read(iter(FORMS[form](folder)), batches))


def measure_pipelines(folder, arguments):
    """Runs of `load_tfds` and of the textbook form, in turn."""
    pipelines = {form: make(folder) for form, make in FORMS.items()}
    check_agreement(pipelines, arguments.images)
    count = arguments.pipeline_batches
    runs = {name: [] for name in pipelines}
    for name in [*pipelines] * arguments.repeats:
        batches = iter(pipelines[name])
        read(batches, count)  # Until AUTOTUNE has settled.
        runs[name].append(measured(BATCH * count, functools.partial(read, batches, count)))
        del batches  # Or it would work ahead in the other one's time.
    return runs


def read(batches, count):
    for _ in range(count):
        next(batches)


def measure_step(arguments):
    rng = np.random.default_rng(0)
    batch = arguments.batch_size
    images = rng.integers(0, 256, (batch, SIZE, SIZE, 3)).astype("uint8")
    dataset = make_dataset(images, rng.integers(0, 1000, batch), batch_size=batch)
    model = keras_sagan.SAGAN.from_preset("sagan_imagenet_128", arguments.recipe, seed=0)
    model.compile()

    def train():
        model.fit(dataset, steps_per_epoch=1, verbose=0)

    train()  # Tracing, and oneDNN's first look at each shape.
    train()
    return [measured(batch, train) for _ in range(arguments.steps)]


def demand(images_per_core_second):
    """The images a second of a step that keeps a chip's arithmetic or its memory wholly busy.

    No step is faster, so the cores below are enough for one chip.
    """
    compiled = json.loads(STEP_RECORD.read_text())
    images, report = compiled["settings"]["batch_size"], compiled["reports"][0]  # Of one chip.
    rows = []
    for name, (flops, bandwidth) in CHIPS.items():
        seconds = max(report["flops"] / flops, report["bytes_accessed"] / bandwidth)
        rows.append(
            {
                "chip": name,
                "peak_tflops": flops / 1e12,
                "memory_gb_per_second": bandwidth / 1e9,
                "images_per_second_at_most": common.rounded(images / seconds, 3),
                "cores_that_keep_up": common.rounded(images / seconds / images_per_core_second, 3),
            }
        )
    return rows


def speed_table(record):
    """What was measured, as it stands in benchmarks/logs/performance.md."""
    lines = [
        "| | images a second | images a second of one core | peak, MB |",
        "|---|---:|---:|---:|",
    ]
    names = {
        "pipeline": "`load_tfds`",
        "textbook": "plain `tf.data`, in no order that can be found again",
        "training_step": "training step",
    }
    for key, figure in record["images_per_second_medians"].items():
        cells = [f"{figure[name]:.3g}" for name in ("per_second", "per_core_second")]
        cells.append(f"{record['peak_mb'][key]:.0f}" if key in record["peak_mb"] else "")
        lines.append(f"| {names[key]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def demand_table(chips):
    """What `demand` returned, as it stands in benchmarks/logs/performance.md."""
    lines = ["| one chip | images a second at most | cores that keep up |", "|---|---:|---:|"]
    for row in chips:
        figures = row["images_per_second_at_most"], row["cores_that_keep_up"]
        lines.append(f"| {row['chip']} | {figures[0]:,.0f} | {figures[1]:.1f} |")
    return "\n".join(lines) + "\n"


def main():
    parser = common.argument_parser(__doc__, "input_pipeline")
    parser.add_argument("--images", type=int, default=512, help="JPEGs to make")
    parser.add_argument("--pipeline_batches", type=int, default=16, help="of 64, a measurement")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of the pipeline")
    parser.add_argument("--steps", type=int, default=5, help="measured training steps")
    parser.add_argument("--batch_size", type=int, default=8, help="of the training step")
    parser.add_argument("--recipe", default="official")
    arguments = parser.parse_args()
    tfds.disable_progress_bar()

    with tempfile.TemporaryDirectory() as folder:
        stored = store_photographs(arguments.images, folder)
        runs = measure_pipelines(folder, arguments)
        batches = 2 * arguments.pipeline_batches
        peaks = {
            form: common.peak_in_new_process(__file__, form=form, folder=folder, batches=batches)
            for form in FORMS
        }
    by_textbook = statistics.median(
        ours["per_second"] / plain["per_second"]
        for ours, plain in zip(runs["pipeline"], runs["textbook"])
    )
    runs["training_step"] = measure_step(arguments)

    figures = {name: medians(each) for name, each in runs.items()}
    ratio = figures["pipeline"]["per_core_second"] / figures["training_step"]["per_core_second"]
    chips = demand(figures["pipeline"]["per_core_second"])
    record = common.record(
        __file__,
        arguments.json,
        packages=("keras", "tensorflow", "tensorflow-datasets"),
        settings={k: v for k, v in vars(arguments).items() if k != "json"},
        images={
            "pixels": [WIDTH, HEIGHT],
            "mean_stored_bytes": round(stored),
            "jpeg_quality": QUALITY,
        },
        images_per_second_medians=figures,
        times_the_textbook=common.rounded(by_textbook, 3),
        ratio_per_core=round(ratio, 1),
        demand={"step": STEP_RECORD.name, "chips": chips},
        peak_mb=peaks,
        runs=runs,
    )
    print(speed_table(record), demand_table(chips), sep="\n")
    print(f"The pipeline has {ratio:.0f} times the step's images per core,")
    print(f"and {by_textbook:.2f} times the images of plain tf.data in the same time.")


if __name__ == "__main__":
    common.run(main, peak)
