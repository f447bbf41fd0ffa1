"""Measures a saved model or a folder of images, and writes an HTML report.

Command:   python examples/evaluate.py runs/fashion_mnist --num-images 10000
           python examples/evaluate.py --generated samples --reference photos
           It has the options of `keras-sagan evaluate`, but `--output` is a folder
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

from keras_sagan import metrics, visualization
from keras_sagan.cli.commands import evaluate, load_run
from keras_sagan.cli.main import fill, select_backend
from keras_sagan.log import Log
from keras_sagan.metrics.images import GeneratedImages

GRID_IMAGES = 60


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    fill(parser, "evaluate")
    parser.set_defaults(output="runs/evaluation")
    return parser.parse_args(arguments)


def some_images(settings):
    """Returns uint8 images for the sample grid."""
    if settings.generated:
        return next(iter(metrics.FolderImages(settings.generated, GRID_IMAGES)))
    model, _ = load_run(settings.run, is_any=True)
    images = GeneratedImages(
        model,
        GRID_IMAGES,
        # Models other than a SAGAN don't store their number of classes.
        class_counts=None if hasattr(model, "generate") else np.ones(2),
        seed=settings.seed,
        use_ema=not settings.raw_weights,
        truncation=settings.truncation,
    )
    return next(images.batches())[0]


def embedded(images):
    """Returns a sample grid as the source of an HTML image."""
    from PIL import Image

    grid = visualization.sample_grid(images[:GRID_IMAGES], columns=10 if len(images) > 9 else None)
    buffer = io.BytesIO()
    Image.fromarray(grid.squeeze(-1) if grid.shape[-1] == 1 else grid).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def bar(report, name):
    """Draws a score between its two baselines, as an SVG line."""
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
    """Returns the report as a self-contained HTML page."""

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
    settings.output = str(workdir / "report.json")
    log = Log(["examples/evaluate.py", *(arguments or sys.argv[1:])])
    try:
        select_backend(settings.backend)
        workdir.mkdir(parents=True, exist_ok=True)
        text = page(evaluate(log, vars(settings)), some_images(settings))
        (workdir / "report.html").write_text(text, encoding="utf-8")
    except Exception as error:
        sys.exit(f"evaluate.py: {log.failed(error)}")
    print(f"report.html is in {workdir}/")


if __name__ == "__main__":
    main()
