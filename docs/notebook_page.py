"""Shows the tutorial notebook as a page of the site, with the outputs of its cells.

After a change, run the notebook, and then this script, which removes outputs that the page
doesn't show:

    jupyter nbconvert --to notebook --execute --inplace docs/tutorial.ipynb
    python docs/notebook_page.py
"""

import base64
import io
import json
from pathlib import Path

NOTEBOOK, PAGE = "tutorial.ipynb", "tutorial.md"


def in_256_colours(data):
    """Makes a PNG in base64 smaller."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode("".join(data)))).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def cleaned(notebook):
    """Returns a notebook without warnings, times, and pictures in a second format."""
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["outputs"] = [x for x in cell["outputs"] if x.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop("image/jpeg", None)
            if "image/png" in data:
                data["image/png"] = in_256_colours(data["image/png"])
    return notebook


def page_of(notebook):
    """Returns the page in Markdown, and its pictures by their file names."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"tutorial_{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![What the cell above shows]({name})")
            else:
                shown = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
                parts.append(f"```text\n{shown}\n```")
    parts.insert(1, f"[Download the notebook]({NOTEBOOK}){{ download }}")
    return "\n\n".join(parts) + "\n", pictures


def on_files(files, config):
    from mkdocs.structure.files import File

    text, pictures = page_of(json.loads(files.get_file_from_path(NOTEBOOK).content_string))
    for name, content in {PAGE: text, **pictures}.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    # In the repository other pages link to the notebook, which GitHub shows.
    return markdown if page.file.src_uri == PAGE else markdown.replace(f"({NOTEBOOK})", f"({PAGE})")


if __name__ == "__main__":
    path = Path(__file__).with_name(NOTEBOOK)
    notebook = cleaned(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
