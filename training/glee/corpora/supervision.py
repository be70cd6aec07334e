"""How each corpus is trained on: its kind of query, and the losses that its annotations allow (`GleeSupervision`)."""

TASKS = ("labels", "expressions", "phrases")

# labels: the objects of a list of categories ("object" where there are none); expressions: one object a sentence;
# phrases: the batch's phrases are the list of categories, as GLEE learns from captions.
CORPUS_TASKS = {"refcoco": "expressions", "refer_youtube_vos": "expressions", "grit": "phrases"}

# Fields that differ from the defaults. Masks need none: without masks in the annotations, no mask loss is computed.
CORPUS_SUPERVISION: dict[str, dict] = {
    "grit": {"boxes": False},  # predicted by a model: used to match, without a loss
    "sa1b": {"class_agnostic": True},
    "uvo": {"class_agnostic": True},
    "uvo_videos": {"class_agnostic": True},
}

# Corpora of free names: a name that an object lacks may still be true of it, so the only negatives are names from the
# batch's other pictures.
FREE_NAMES = ("visual_genome",)

# Default share of the batches with visual prompts: only some of the objects in such videos are annotated, so a query
# for all objects would teach the model to miss the others.
CORPUS_PROMPTS = {"vos": 1.0}
