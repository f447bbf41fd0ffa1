"""Scores a saved model or a folder of images, and writes the report as JSON and as a page.

Command:   python examples/evaluate.py --model runs/fashion_mnist/model.keras \
               --reference fashion_mnist --extractor grey --num_images 10000
Data:      `--reference` is `fashion_mnist` (the 10,000 images that ship), a split of TensorFlow
           Datasets such as `tfds:cifar10:train`, a folder of images, or a `.npz` file of
           statistics of this package, pytorch-fid or clean-fid
Result:    runs/evaluation/ with report.json, and report.html with the scores beside their
           baselines, a sample grid and the protocol
"""

import argparse
import base64
import html
import io
import sys
from pathlib import Path

import numpy as np

import keras_sagan  # noqa: F401  (registers the layers and the model)
from keras_sagan import data, metrics, visualization
from keras_sagan.cli.log import Log
from keras_sagan.cli.sources import EXTRACTORS, load_file
from keras_sagan.metrics.images import GeneratedImages

GRID_IMAGES = 60


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="a saved SAGAN, or a Keras generator, as .keras")
    what.add_argument("--images", help="a folder of images")
    parser.add_argument("--reference", required=True, help="see above")
    parser.add_argument("--held_out", help="a folder of other real images, for the floor")
    parser.add_argument("--extractor", default="tfgan", choices=sorted(EXTRACTORS))
    text = "folder of TF-GAN's Inception; default: TF-Hub's, which needs its digest"
    parser.add_argument("--inception", default=metrics.TFGAN_INCEPTION_HANDLE, help=text)
    parser.add_argument("--inception_sha256", help="the digest of its files")
    parser.add_argument("--resize", choices=["tfgan", "antialiased"], help="of the extractor")
    parser.add_argument(
        "--metrics", nargs="+", default=["fid", "kid"], choices=sorted(metrics.METRICS)
    )
    parser.add_argument("--num_images", type=int, help="default: 50000, or all of --images")
    parser.add_argument("--labels", default="uniform", choices=["uniform", "reference"])
    parser.add_argument("--standing_passes", type=int, default=0)
    parser.add_argument("--raw_weights", action="store_true", help="not the averaged ones")
    parser.add_argument("--truncation", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--image_size", type=int, default=32, help="of a TFDS reference")
    parser.add_argument("--data_dir", help="folder of TFDS's data")
    parser.add_argument("--cache_dir", help="where the statistics of a reference are kept")
    parser.add_argument("--output", default="runs/evaluation", help="where the report goes")
    return parser.parse_args(arguments)


def make_extractor(settings):
    has_none = settings.resize is None or settings.extractor == "grey"
    resize = {} if has_none else {"resize": settings.resize}
    if settings.extractor == "tfgan":
        return metrics.TFGANInception(settings.inception, settings.inception_sha256, **resize)
    return EXTRACTORS[settings.extractor](**resize)


def load_reference(settings):
    """Returns the real images, their number of classes, and what `evaluate_images` must know."""
    name = settings.reference
    if name == "fashion_mnist":
        images, labels = data.load_fashion_mnist()
        known = {"dataset": "Fashion-MNIST, 32 pixels", "split": "test"}
        return (data.pad_to_32(images), labels), 10, known
    if name.startswith("tfds:"):
        _, dataset, split = (name + ":train").split(":")[:3]
        batches, info = data.load_tfds(
            dataset,
            split,
            settings.image_size,
            batch_size=1,  # which divides any number: batches are full
            shuffle=False,
            data_dir=settings.data_dir,
        )
        batches = batches.unbatch().batch(settings.batch_size)
        known = {"dataset": f"{dataset}, {settings.image_size} pixels", "split": split}
        return batches, info.num_classes, {**known, "num_reference": info.num_images}
    if name.endswith(".npz"):
        counts = metrics.ReferenceStatistics.load(name).class_counts
        return name, None if counts is None else len(counts), {}
    return metrics.FolderImages(name, settings.batch_size), None, {"dataset": Path(name).name}


def measure(settings):
    """Returns the report and some images to look at."""
    reference, num_classes, known = load_reference(settings)
    held_out = settings.held_out
    common = {
        "reference": reference,
        "metrics": settings.metrics,
        "feature_extractor": make_extractor(settings),
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "cache_dir": settings.cache_dir,
        "held_out": held_out and metrics.FolderImages(held_out, settings.batch_size),
        **known,
    }
    if settings.images:
        source = metrics.FolderImages(settings.images, settings.batch_size)
        name, count = source.folder.name, settings.num_images
        report = metrics.evaluate_images(source, num_images=count, name=name, **common)
        return report, next(iter(metrics.FolderImages(settings.images, GRID_IMAGES)))
    model, is_averaged = load_file(settings.model), not settings.raw_weights
    report = metrics.evaluate_generator(
        model,
        num_images=settings.num_images or 50_000,
        labels=settings.labels,
        use_ema=is_averaged,
        truncation=settings.truncation,
        standing_passes=settings.standing_passes,
        **common,
    )
    shown = GeneratedImages(
        model,
        GRID_IMAGES,
        class_counts=num_classes and np.ones(num_classes),
        seed=settings.seed,
        use_ema=is_averaged,
        truncation=settings.truncation,
    )
    return report, next(shown.batches())[0]


def embedded(images):
    """A sample grid as the source of an HTML image."""
    from PIL import Image

    grid = visualization.sample_grid(images[:GRID_IMAGES], columns=10 if len(images) > 9 else None)
    buffer = io.BytesIO()
    Image.fromarray(grid.squeeze(-1) if grid.shape[-1] == 1 else grid).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def bar(report, name):
    """The score between its two baselines, as an SVG line."""
    points = {"generated": report.values[name]}
    points |= {key: part[name] for key, part in report.baselines.items() if name in part}
    if len(points) < 2 or not np.isfinite(list(points.values())).all():
        return ""
    low, high = min(points.values()), max(points.values())
    colours = {"generated": "#0072B2", "real": "#009E73", "noise": "#D55E00"}
    marks = "".join(
        f'<circle cx="{10 + 220 * (value - low) / (high - low or 1):.1f}" cy="9" r="5" '
        f'fill="{colours[key]}"><title>{key}: {value:.5g}</title></circle>'
        for key, value in points.items()
    )
    return f'<svg width="240" height="18"><path d="M10 9H230" stroke="#bbb"/>{marks}</svg>'


def page(report, samples):
    """The report as one HTML file that needs no other."""

    def cell(part, name):
        return f"{part[name]:.5g}" if name in part and np.isfinite(part[name]) else "–"

    columns = (report.values, report.baselines["real"], report.baselines["noise"])
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(f"<td class=n>{cell(part, name)}</td>" for part in columns)
        + f"<td>{bar(report, name)}</td></tr>"
        for name in report.values
    )
    counts = [report.protocol["num_generated"]]
    counts += [part.get("num_images", "–") for part in report.baselines.values()]
    rows += "<tr><td>images</td>" + "".join(f"<td class=n>{x}</td>" for x in counts) + "<td></tr>"
    notes = "".join(
        f"<p>{html.escape(key)}: {html.escape(part['note'])}.</p>"
        for key, part in report.baselines.items()
        if "note" in part
    )
    notes += "".join(f"<p>{html.escape(note)}.</p>" for note in report.notes)
    protocol = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{shown(value)}</td></tr>"
        for key, value in report.protocol.items()
    )
    grid = (
        "" if samples is None else f'<h2>Samples</h2><img src="{embedded(samples)}" alt="Samples">'
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 60em; margin: 2em auto; color: #222;
  padding: 0 1em }}
table {{ border-collapse: collapse }} td, th {{ padding: .25em .8em; text-align: left;
  border-bottom: 1px solid #ddd; vertical-align: top; overflow-wrap: anywhere }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums }}
img {{ max-width: 100% }} i {{ display: inline-block; width: .7em; height: .7em;
  border-radius: 50%; margin-right: .3em }}
</style>
<h1>Evaluation</h1><p>{html.escape(report.model)}</p>
<h2>Scores</h2><table><tr><th>score<th class=n><i style="background:#0072B2"></i>generated
<th class=n><i style="background:#009E73"></i>real
<th class=n><i style="background:#D55E00"></i>noise<th></tr>{rows}</table>{notes}
{grid}
<h2>Protocol</h2><table>{protocol}</table></html>
"""


def shown(value):
    if isinstance(value, dict):
        return "<br>".join(
            f"{html.escape(str(k))}: {html.escape(str(v))}" for k, v in value.items()
        )
    return html.escape("–" if value is None else str(value))


def main(arguments=None):
    settings = parse_arguments(arguments)
    workdir = Path(settings.output)
    log = Log(None, ["examples/evaluate.py", *(sys.argv[1:] if arguments is None else arguments)])
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        report, samples = measure(settings)
        report.save(workdir / "report.json")
        (workdir / "report.html").write_text(page(report, samples), encoding="utf-8")
    except Exception as error:
        sys.exit(f"evaluate.py: {log.failed(error)}")
    print(report)
    print(f"\nreport.json and report.html are in {workdir}/")


if __name__ == "__main__":
    main()
