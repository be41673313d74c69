"""The pages of reports: templates that escape what they are given, and refuse a name that they are not."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def page_environment() -> "Environment":
    """Return an environment of its own for a page, to which the page adds its filters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("videomae.plots"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
