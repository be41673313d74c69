"""Packages that only some features need: the extras of this package."""

from importlib.util import find_spec

from videomae.errors import MissingPackageError


def require(package: str, *, extra: str, purpose: str) -> None:
    """Make sure that a package can be imported.

    Args:
        package: the name that it is imported by.
        extra: the extra of this package that brings it, such as "features".
        purpose: what needs it, as the beginning of a sentence: "searching needs LanceDB".

    Raises:
        MissingPackageError: if it is not installed; says what to install.
    """
    if find_spec(package) is None:
        raise MissingPackageError(f"{purpose}, which is not installed: pip install 'videomae[{extra}]'.")
