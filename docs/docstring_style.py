"""Prepares the docstrings of this package for mkdocstrings.

Examples are doctests below a line `Example:`, and `Call arguments`, `State` and `Reference` are
sections that Google's style doesn't have.
"""

import re
import textwrap

import griffe

# Written as text under a bold line; all others are sections that griffe knows.
PLAIN = ("Example", "State", "Reference", "Returns", "Yields")


def restyle(text):
    """Returns a docstring with fences around its doctests and plain sections dedented."""
    text = text.replace("\nCall arguments:\n", "\nOther Parameters: Call arguments:\n")
    # Names of arguments that share a line's text, and take several lines by themselves.
    text = re.sub(r"(\n    \w[\w, *]*,)\n +(?=[\w, *\n]+:)", r"\1 ", text)
    text = re.sub(r"(\n    \w[\w, *]*,)\n +(?=[\w, *\n]+:)", r"\1 ", text)
    lines = text.split("\n")
    shown, index = [], 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if line.rstrip(":") in PLAIN and line.endswith(":"):
            body = []
            while index < len(lines) and (not lines[index] or lines[index].startswith(" ")):
                body.append(lines[index])
                index += 1
            body = textwrap.dedent("\n".join(body)).split("\n")
            shown += ["", f"**{line}**", "", *body]
        else:
            shown.append(line)
    return fence("\n".join(shown))


def fence(text):
    return re.sub(
        r"(?:^|(?<=\n))((?:>>>|\.\.\.)[^\n]*(?:\n(?!\n)[^\n]+)*)", r"```pycon\n\1\n```", text
    )


class DocstringStyle(griffe.Extension):
    """Restyles every docstring before it is parsed."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = restyle(obj.docstring.value)
