"""All scores of a generator, or of images, from one pass of features."""

import contextlib

from keras_sagan.checks import check_boolean, check_float, check_integer, check_string
from keras_sagan.metrics.evaluation_run import EvaluationRun
from keras_sagan.metrics.feature_log import in_use
from keras_sagan.metrics.image_sources import (
    STANDING_BATCH,
    GeneratedImages,
    first_images,
    length_of,
)
from keras_sagan.metrics.progress import Progress
from keras_sagan.metrics.standing_statistics import standing_statistics


def evaluate_generator(
    model,
    reference,
    metrics=("fid", "kid", "precision_recall", "density_coverage"),
    feature_extractor=None,
    num_images=50_000,
    labels="uniform",
    seed=0,
    batch_size=64,
    use_ema=True,
    truncation=None,
    standing_passes=0,
    **kwargs,
):
    """Measures a generator by several scores in one pass of features.

    Exactly `num_images` images are made, from latents and labels that depend on the seed and on
    nothing else. The batch size has no influence beyond 1e-6.

    Args:
        model: A `SAGAN`, or anything with its `generate()`, `latent_dim` and `num_classes`; or a
            Keras model from latents, or from [latents, labels], to images in [-1, 1].
        reference: The real images: uint8 arrays, a pair of arrays (images, labels), a finite
            iterable of batches of either; `ReferenceStatistics`; or the path of a `.npz` file of
            statistics, of this package, pytorch-fid, clean-fid or torch-fidelity.
        metrics: Names from `METRICS`, or metrics of this package that share one extractor.
        feature_extractor: The extractor for metrics that are given by name, which need it.
        num_images: Integer. Defaults to `50000`.
        labels: `"uniform"`, all classes in equal number; `"reference"`, in the reference's
            frequencies; or an integer array of shape (num_images,). Defaults to `"uniform"`.
        seed: Integer, the seed of latents, labels, noise. Defaults to `0`.
        batch_size: Integer, how many images are made and measured at once. Defaults to `64`.
        use_ema: Boolean, whether to use the averaged generator if there is one. Defaults to
            `True`.
        truncation: `None`, or the positive float that latents are truncated at.
        standing_passes: Integer, the forward passes, of 64 images each, over which batch
            statistics are estimated anew. Defaults to `0`: the moving statistics of training.
        **kwargs: `dataset`, `split`, `held_out`, `value_range`, `num_reference`, `checkpoint`,
            `cache_dir`, `strategy` and `verbose`, as in `evaluate_images`.

    Returns:
        `EvaluationReport`.

    Raises:
        ValueError: If an argument is invalid, the reference is of another extractor or doesn't
            hold what a metric needs, or images or features are of the wrong kind.

    Example:

    ```python
    report = evaluate_generator(
        model,
        (test_images, test_labels),
        metrics=("fid", "kid", "intra_fid"),
        feature_extractor=GreyClassifierFeatures(),
        num_images=10_000,
        dataset="Fashion-MNIST",
        split="test",
    )
    print(report)
    report.save("report.json")
    ```
    """
    # Before the reference is read, which may take long.
    num_images = check_integer("num_images", num_images, 2)
    use_ema = check_boolean("use_ema", use_ema)
    truncation = check_float("truncation", truncation, above=0, optional=True)
    standing_passes = check_integer("standing_passes", standing_passes, 0)
    with in_use(kwargs.get("checkpoint")):
        evaluation = EvaluationRun(
            reference, metrics, feature_extractor, batch_size, seed, **kwargs
        )
        source = GeneratedImages(
            model,
            num_images,
            labels,
            evaluation.reference.class_counts,
            seed,
            batch_size,
            use_ema,
            truncation,
            kwargs.get("strategy"),
        )
        protocol = {**source.protocol, "batch_statistics": "moving"}
        standing = contextlib.nullcontext()
        if standing_passes:
            protocol["batch_statistics"] = f"standing, {standing_passes} passes of {STANDING_BATCH}"
            total = standing_passes * STANDING_BATCH
            progress = Progress("Standing statistics", total, kwargs.get("verbose", True))
            batches = source.standing_batches(standing_passes, seed, progress)
            standing = standing_statistics(source.network, batches)
        name = source.name
        with standing:
            parts = evaluation.of_batches(source.batches, ["generated", name, protocol])
            return evaluation.run(parts, num_images, protocol, name)


def evaluate_images(
    images,
    reference,
    metrics=("fid", "kid", "precision_recall", "density_coverage"),
    feature_extractor=None,
    num_images=None,
    name="images",
    seed=0,
    batch_size=64,
    **kwargs,
):
    """Measures images that exist already, such as a folder of samples; see `evaluate_generator`.

    Args:
        images: uint8 images, or floats in `value_range`: an array, a pair of arrays (images,
            labels), or an iterable of batches of either.
        reference: As in `evaluate_generator`.
        metrics: As in `evaluate_generator`.
        feature_extractor: As in `evaluate_generator`.
        num_images: Integer, how many of the images to take. Defaults to all of them; an iterable
            must have it said.
        name: String, what the images are called in the report.
        seed: Integer, the seed of the noise. Defaults to `0`.
        batch_size: Integer, how many images are measured at once. Defaults to `64`.
        **kwargs:
            dataset: String, the name of the reference in the report.
            split: String, the name of its split.
            held_out: Other real images, as `reference`, for the floor. Defaults to one half of
                the reference against the other.
            value_range: `None`, or the pair `(low, high)` of float images.
            num_reference: Integer, how many of the reference's images to take, from the first on;
                an endless iterable, such as `load_tfds` gives, must have it said. Defaults to all.
            checkpoint: A local folder in which features are kept while they are computed, those of
                the reference and of the baselines too: the same call resumes where it was
                interrupted. Images that are read again are compared with those that were seen, so
                features of others are never taken. One evaluation at a time can use a folder.
                Defaults to `None`.
            cache_dir: A folder for the statistics of the reference, by its `dataset`, `split`,
                size and extractor. An iterable needs `num_reference` then, if it has no
                `num_images`. Defaults to `None`: computed each time.
            strategy: `tf.distribute.Strategy` whose replicas share the work of the extractor, and
                of a generator that is a Keras network.
            verbose: Boolean, whether to show a bar if it takes more than ten seconds. Defaults to
                `True`.

    Returns:
        `EvaluationReport`.

    Raises:
        ValueError: As `evaluate_generator`, if there are fewer than `num_images` images, and if
            another evaluation is using `checkpoint`.
    """
    if num_images is None:
        num_images = length_of(images)
    if num_images is None:
        raise ValueError(
            "`num_images` must be given for an iterable of batches. Received: num_images=None"
        )
    num_images = check_integer("num_images", num_images, 2)
    name = check_string("name", name)
    with in_use(kwargs.get("checkpoint")):
        evaluation = EvaluationRun(
            reference, metrics, feature_extractor, batch_size, seed, **kwargs
        )
        images = first_images(images, num_images, batch_size, "num_images")
        protocol = {
            "weights": "not stated",
            "batch_statistics": "not stated",
            "labels": "as given",
            "truncation": "not stated",
            "seed": evaluation.seed,
        }
        return evaluation.run(evaluation.of_images(images, name), num_images, protocol, name)
