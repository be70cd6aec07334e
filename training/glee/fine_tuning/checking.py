"""What a COCO file's annotations can teach and measure; what they cannot is refused, or said with ids and counts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lookhear.processing.glee.prompt_processing_glee import clean_label

logger = logging.getLogger(__name__)
MOST_SHOWN = 10


@dataclass(frozen=True)
class Annotated:
    """
    Objects of some pictures; crowds are counted by themselves only.

    Attributes:
        categories: how many objects each category has.
        unmasked: id of the picture of each object without a mask.
        crowds: number of crowds.
    """

    categories: Counter[str]
    unmasked: list[str]
    crowds: int

    @classmethod
    def of_rows(cls, rows: Sequence[dict[str, Any]]) -> Annotated:
        """Counts the objects of rows in the corpora's schema."""
        categories: Counter[str] = Counter()
        unmasked, crowds = [], 0
        for place in range(len(rows)):
            row = rows[place]
            objects = [instance for instance in row["objects"] if not instance["crowd"]]
            crowds += len(row["objects"]) - len(objects)
            categories.update(instance["category"] for instance in objects)
            unmasked += [row["id"] for instance in objects if instance["mask"] is None]
        return cls(categories, unmasked, crowds)

    @property
    def count(self) -> int:
        """Returns the number of objects."""
        return self.categories.total()

    @property
    def mostly_masked(self) -> bool:
        """Returns whether at least half of the objects have a mask."""
        return self.count > 0 and 2 * len(self.unmasked) <= self.count


def check_annotated(trained: Annotated, measured: Annotated, classes: Sequence[str], source: str) -> bool:
    """
    Checks that a training has objects to learn from and to be measured by.

    Args:
        trained: objects of the pictures to train on.
        measured: objects of the pictures to measure on.
        classes: names of the classes.
        source: where the pictures to measure on come from, for messages.

    Returns:
        whether masks are measured: if at least half of the objects have one.

    Raises:
        ValueError: there is nothing to learn, or nothing to measure.
    """
    if not trained.count:
        what = f"all {trained.crowds} objects are crowds (iscrowd is 1)" if trained.crowds else "there are no objects"
        raise ValueError(f"data: {what}: nothing can be learnt from them; set iscrowd to 0, or annotate objects")
    known = {clean_label(name) for name in classes}
    unknown = Counter(
        {name: count for name, count in measured.categories.items() if clean_label(str(name)) not in known}
    )
    if unknown.total() == measured.count:
        named = f" ({_listed(list(unknown))})" if unknown else ""
        raise ValueError(
            f"{source}: none of its {measured.count} objects{named} is of a class that is trained "
            f"({_listed(classes)}): nothing could be measured; use the same names, or other pictures"
        )
    if unknown:
        logger.warning(
            "%s: objects that are not of a trained class are not measured: %s",
            *(source, ", ".join(f"{name} ({count})" for name, count in unknown.most_common(MOST_SHOWN))),
        )
    masks = trained.mostly_masked and measured.mostly_masked
    for name, found in {"data": trained, source: measured}.items():
        if 0 < len(found.unmasked) < found.count:
            effect = (
                "batches with them learn boxes only, and mask AP is without them" if masks else "masks don't count"
            )
            pictures = _listed(list(dict.fromkeys(found.unmasked)))
            logger.warning(
                "%s: %d of %d objects have no mask (pictures %s): %s",
                *(name, len(found.unmasked), found.count, pictures, effect),
            )
    return masks


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(map(str, names[:MOST_SHOWN])) + more
