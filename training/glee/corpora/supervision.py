"""What each corpus' annotations are good for, as data: fields of `GleeSupervision` and what is asked for."""

TASKS = ("labels", "expressions", "phrases")

# labels: the objects of a list of categories ("object" where there are none); expressions: one object a sentence;
# phrases: the batch's phrases are the list of categories, as GLEE learns from captions.
CORPUS_TASKS = {"refcoco": "expressions", "refer_youtube_vos": "expressions", "grit": "phrases"}

# Beyond the defaults. Masks need no switch: without masks in the annotations none are learnt.
CORPUS_SUPERVISION: dict[str, dict] = {
    "grit": {"boxes": False},  # drawn by a model: matched, not learnt
    "sa1b": {"class_agnostic": True},
    "uvo": {"class_agnostic": True},
    "uvo_videos": {"class_agnostic": True},
}

# Corpora of free names: one that is not said of an object may still be true of it, so none is asked for as absent but
# those of the batch's other pictures.
FREE_NAMES = ("visual_genome",)

# Share of the batches that ask by visual prompts where a recipe does not say: of the objects in such videos only some are
# annotated, so that asking for all objects would teach not to find the others.
CORPUS_PROMPTS = {"vos": 1.0}
