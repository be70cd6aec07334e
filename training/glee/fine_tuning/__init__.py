"""Fine-tuning on a COCO file of one's own: average precision by epoch, a card, a sheet of pictures."""

from .fine_tune import FineTuneOptions, fine_tune

__all__ = ["FineTuneOptions", "fine_tune"]
