"""Fine-tuning on a COCO file of one's own: average precision by epoch, a card, a sheet of pictures."""
