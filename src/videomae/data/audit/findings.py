"""A finding: something about a data set that a person should know, and what to do about it."""

from dataclasses import dataclass

ERROR, WARNING, NOTE = SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Item:
    """One occurrence of a finding.

    Attributes:
        videos: paths as the manifest writes them; several where they belong together, none for the set as a whole.
        detail: what was measured.
    """

    videos: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class Finding:
    """Something about the data that a person should know.

    Attributes:
        kind: short name that programs can rely on, such as "split-leak".
        severity: "error" spoils training or its measure, "warning" may, "note" is good to know.
        title: what it is.
        advice: what to do about it.
        items: where it was found, at least one.
    """

    kind: str
    severity: str
    title: str
    advice: str
    items: tuple[Item, ...]

    @property
    def videos(self) -> tuple[str, ...]:
        """Paths of all videos concerned, each once."""
        return tuple(dict.fromkeys(path for item in self.items for path in item.videos))
