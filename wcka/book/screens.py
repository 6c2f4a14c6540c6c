"""A Sphinx extension: figures open at their full size, and parameters fold away."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes

# CSS pixels per unit of length
_PIXELS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "in": 96.0}


def setup(app: Any) -> dict[str, bool]:
    """Register what the extension does; Sphinx calls this.

    Parameters
    ----------
    app : sphinx.application.Sphinx

    Returns
    -------
    dict
        What Sphinx may do with the extension.

    Examples
    --------
    >>> from unittest.mock import Mock
    >>> setup(Mock())["parallel_read_safe"]
    True
    """
    app.connect("doctree-read", fold_parameters)
    app.connect("doctree-resolved", give_images_a_width)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fold_parameters(app: Any, doctree: nodes.document) -> None:
    """Have the cells with the tag "parameters" shown folded.

    The notebooks stay as they are: only MyST-NB's nodes of their cells are marked.

    Parameters
    ----------
    app : sphinx.application.Sphinx
    doctree : docutils.nodes.document
        A page as MyST-NB reads it.

    Examples
    --------
    >>> page = nodes.document(None, None)
    >>> page += nodes.container(classes=["cell", "tag_parameters"])
    >>> fold_parameters(None, page)
    >>> page[0]["hide_mode"], page[0]["prompt_show"]
    ('input', 'Show the parameters')
    """
    for cell in doctree.findall(nodes.container):
        if "tag_parameters" in cell["classes"]:
            cell["hide_mode"] = "input"
            cell["prompt_show"] = "Show the parameters"
            cell["prompt_hide"] = "Hide the parameters"


def give_images_a_width(app: Any, doctree: nodes.document, docname: str) -> None:
    """Give each image that has no size its own width.

    Sphinx links an image to its file if the page gives it a size.

    Parameters
    ----------
    app : sphinx.application.Sphinx
    doctree : docutils.nodes.document
        A page before it is written.
    docname : str
        Its name, which is not used.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> page = nodes.document(None, None)
    >>> page += nodes.image(uri="no-such-file.svg")
    >>> give_images_a_width(SimpleNamespace(srcdir="."), page, "index")
    >>> page[0]["width"]
    '100%'
    """
    for image in doctree.findall(nodes.image):
        if not {"width", "height", "scale"} & set(image.attributes):
            image["width"] = width_of_svg(Path(app.srcdir, image["uri"])) or "100%"


def width_of_svg(path: Path) -> str:
    """Return the width of a vector graphic in CSS pixels.

    Parameters
    ----------
    path : Path
        A file.

    Returns
    -------
    str
        Such as "710px"; empty if the file is no SVG that says how wide it is.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "square.svg"
    ...     _ = path.write_text('<svg width="72pt" height="72pt"></svg>')
    ...     width_of_svg(path)
    '96px'
    """
    if path.suffix != ".svg" or not path.is_file():
        return ""
    head = re.search(r"<svg\b[^>]*", path.read_text("utf-8"))
    width = re.search(r'\bwidth="([\d.]+)([a-z]*)"', head[0]) if head else None
    if not width or width[2] not in _PIXELS:
        return ""
    return f"{float(width[1]) * _PIXELS[width[2]]:.0f}px"
