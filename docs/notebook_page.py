"""Has mkdocs show the tutorial notebook as a page, with what its cells gave when they were run."""

import base64
import json

from mkdocs.structure.files import File

NOTEBOOK, PAGE = "tutorial.ipynb", "tutorial.md"


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
    parts.insert(1, f"[The notebook itself]({NOTEBOOK}){{ download }}")
    return "\n\n".join(parts) + "\n", pictures


def on_files(files, config):
    text, pictures = page_of(json.loads(files.get_file_from_path(NOTEBOOK).content_string))
    for name, content in {PAGE: text, **pictures}.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    # In the repository other pages link to the notebook, which GitHub shows.
    return markdown if page.file.src_uri == PAGE else markdown.replace(f"({NOTEBOOK})", f"({PAGE})")
