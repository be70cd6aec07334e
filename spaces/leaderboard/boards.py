"""What is compared: the benchmarks, their tasks as columns of tables, and the views of a table on the page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

SPEECH, OBJECTS, QUESTIONS = "audio-visual-speech-recognition", "object-perception", "reasoning-segmentation"
TAGS = (SPEECH, OBJECTS, QUESTIONS)
MODALITIES = {"audio": "Sound", "visual": "Lips", "audiovisual": "Both"}
READ = {"named": "The one named", "sound": "Sound alone", "neighbour": "A neighbour"}
FAMILIES = ("all", "attribute", "place", "order", "relation", "count", "absence", "reasoning")
ASKED = {"own": "Own picture", "others": "Another picture's question", "blind": "Without the picture"}


@dataclass(frozen=True)
class Column:
    """
    One figure of a model.

    Attributes:
        task: id in the benchmark's `eval.yaml`; of a data set without one, a name of ours.
        names: what a card's `model-index` may call it, in lower case, see `plain_name`.
        group: heading above it, shared with its neighbours; "" for none.
        title: its own heading.
        best: "low", "high", or "" where the best one is not marked.
    """

    task: str
    names: tuple[str, ...]
    group: str
    title: str
    best: str = "low"


@dataclass(frozen=True)
class Board:
    """
    A benchmark.

    Attributes:
        key: name of its dataset repository; of a public data set, its name in cards.
        title: for people.
        unit: what the figures are.
        highest: the largest figure that is possible, or believable.
        columns: its tasks.
        others: further names in cards, in lower case.
        on_hub: whether the organisation publishes it with an `eval.yaml`, so that results can be checked.
    """

    key: str
    title: str
    unit: str
    highest: float
    columns: tuple[Column, ...]
    others: tuple[str, ...] = ()
    on_hub: bool = True

    def column(self, task: str) -> Column | None:
        """Returns the column of a task, None if there is none."""
        return next((column for column in self.columns if column.task == task), None)

    def named(self, name: str) -> Column | None:
        """Returns the column that a card calls by this name, None if there is none."""
        return next((column for column in self.columns if name in column.names), None)


@dataclass(frozen=True)
class Panel:
    """One part of a plot: word error rates over signal-to-noise ratios."""

    title: str
    points: tuple[tuple[str, str], ...]  # (ratio as text, task), easy to hard


@dataclass(frozen=True)
class View:
    """
    A table on the page.

    Attributes:
        label: what its button says.
        board: whose figures it shows.
        tasks: which of them, in order.
        about: a sentence or two below the buttons.
        panels: of the plot above the table; () for none.
        unit: what the figures are; "" for the board's.
    """

    label: str
    board: Board
    tasks: tuple[str, ...]
    about: str
    panels: tuple[Panel, ...] = ()
    unit: str = ""

    @property
    def columns(self) -> list[Column]:
        """The columns of its tasks."""
        return [column for task in self.tasks if (column := self.board.column(task)) is not None]


def plain_name(text: str) -> str:
    """Returns a metric's name as cards are compared by: lower case, single spaces, without signs of per cent."""
    return re.sub(r"[\s_]+", " ", text.replace("%", "")).strip().lower().replace(" ,", ",")


def _noise() -> Board:
    conditions = {
        "clean": ("In quiet", "clean", tuple(MODALITIES)),
        "babble_5": ("Babble, 5 dB", "babble, 5", ("audio", "audiovisual")),
        "babble_0": ("Babble, 0 dB", "babble, 0", ("audio", "audiovisual")),
        "babble_minus_5": ("Babble, \u22125 dB", "babble, -5", ("audio", "audiovisual")),
        "talker_0": ("One talker, 0 dB", "talker, 0", ("audio", "audiovisual")),
    }
    columns = [
        Column(f"{key}_{modality}", (f"wer, {name}, {modality}",), group, MODALITIES[modality])
        for key, (group, name, modalities) in conditions.items()
        for modality in modalities
    ]
    return Board("grid-noise", "GRID in noise", "word error rate, %", 1000.0, tuple(columns))


def _talkers() -> Board:
    columns = []
    for people in (2, 3):
        for key, ratio in (("5", "5"), ("0", "0"), ("minus_5", "-5")):
            group = f"{people} people, {ratio.replace('-', chr(0x2212))} dB"
            for read, title in READ.items():
                names = (f"wer, {people}, {ratio}, {read}",)
                best = "" if read == "neighbour" else "low"
                columns.append(Column(f"{people}_{key}_{read}", names, group, title, best))
    for people in (1, 2, 3):
        names = (f"wrong words a minute, {people}, silent, named",)
        columns.append(
            Column(f"{people}_silent_named", names, "", f"{people} {'person' if people == 1 else 'people'}")
        )
    return Board("grid-two-talkers", "GRID two talkers", "word error rate, %", 1000.0, tuple(columns))


def _questions() -> Board:
    columns = [
        Column(f"{asked}_{family}", (f"giou, {asked}, {family}",), title, family, "high" if asked == "own" else "low")
        for asked, title in ASKED.items()
        for family in FAMILIES
    ]
    return Board("scene-questions", "Scene questions", "gIoU, %", 100.0, tuple(columns))


def _from_cards(
    key: str, title: str, unit: str, highest: float, figures: Mapping[tuple[str, str], tuple[str, ...]], *others: str
) -> Board:
    """Makes a board of a data set without `eval.yaml`; `figures` map (group, heading) to names in cards."""
    columns = [
        Column(f"{key}:{names[0]}", tuple(plain_name(name) for name in names), group, heading, "high")
        for (group, heading), names in figures.items()
    ]
    return Board(key, title, unit, highest, tuple(columns), others, on_hub=False)


def _sentences(splits: tuple[str, ...]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Returns the figures of the RefCOCO family: boxes at 0.5, and masks."""
    figures = {}
    for split in splits:
        figures[split, "P@0.5"] = (f"box_P@0.5, {split}", f"P@0.5, {split}")
        figures[split, "oIoU"] = (f"mask_oIoU, {split}", f"oIoU, {split}", f"cIoU, {split}")
        figures[split, "mIoU"] = (f"mask_mIoU, {split}", f"mIoU, {split}")
    return figures


NOISE, TALKERS, SCENE_QUESTIONS = _noise(), _talkers(), _questions()
SCENES = _from_cards(
    "scenes",
    "Generated scenes",
    "share of 1",
    1.0,
    {
        ("8 kinds and people", "box AP50"): ("box AP50, label: 8 kinds and people",),
        ("8 kinds and people", "mask AP50"): ("mask AP50, label: 8 kinds and people",),
        ("Colour and kind", "box AP50"): ("box AP50, label: 24 pairs of colour and kind",),
        ("Colour and kind", "mask AP50"): ("mask AP50, label: 24 pairs of colour and kind",),
        ("Sentences, P@0.5", "attribute"): ("P@0.5, expression: attribute",),
        ("Sentences, P@0.5", "place"): ("P@0.5, expression: place",),
        ("Sentences, P@0.5", "size"): ("P@0.5, expression: size",),
        ("Sentences, P@0.5", "relation"): ("P@0.5, expression: relation",),
        ("Shown, mask IoU", "points"): ("mean mask IoU, points",),
        ("Shown, mask IoU", "boxes"): ("mean mask IoU, boxes",),
        ("Shown, mask IoU", "scribbles"): ("mean mask IoU, scribbles",),
    },
)
VIDEOS = _from_cards(
    "videos",
    "Generated videos",
    "share of 1",
    1.0,
    {
        ("Labels", "IDF1"): ("IDF1, labels",),
        ("Labels", "MOTA"): ("MOTA, labels",),
        ("First frame, J", "points"): ("J, points in the first frame",),
        ("First frame, J", "boxes"): ("J, boxes in the first frame",),
        ("First frame, J", "masks"): ("J, masks in the first frame",),
        ("Sentence", "right object"): ("frames with the right object, expression",),
    },
)
COCO = _from_cards(
    "coco",
    "COCO",
    "AP, %, val2017",
    100.0,
    {
        ("Boxes", "AP"): ("box_AP", "box_AP, val2017", "bbox AP"),
        ("Boxes", "AP50"): ("box_AP50", "box_AP50, val2017"),
        ("Masks", "AP"): ("mask_AP", "mask_AP, val2017", "segm AP"),
        ("Masks", "AP50"): ("mask_AP50", "mask_AP50, val2017"),
    },
    "coco2017",
    "coco-2017",
    "ms-coco",
    "mscoco",
)
REFERRING = tuple(
    _from_cards(key, title, "%", 100.0, _sentences(splits))
    for key, title, splits in (
        ("refcoco", "RefCOCO", ("val", "testA", "testB")),
        ("refcoco+", "RefCOCO+", ("val", "testA", "testB")),
        ("refcocog", "RefCOCOg", ("val", "test")),
    )
)
DAVIS = _from_cards(
    "davis",
    "DAVIS 2017",
    "%, val",
    100.0,
    {("", name): (name, f"{name}, val") for name in ("J&F", "J", "F")},
    "davis2017",
    "davis-2017",
)
TALKER_RATIOS = (("5", "5"), ("0", "0"), ("\u22125", "minus_5"))
BOARDS = (NOISE, TALKERS, SCENE_QUESTIONS, SCENES, VIDEOS, COCO, *REFERRING, DAVIS)


def _noise_views() -> tuple[View, ...]:
    ratios = (("quiet", "clean"), ("5", "babble_5"), ("0", "babble_0"), ("\u22125", "babble_minus_5"))
    panels = tuple(
        Panel(title, tuple((ratio, f"{task}_{modality}") for ratio, task in ratios))
        for modality, title in (("audio", "From sound"), ("audiovisual", "From sound and lips"))
    )
    about = {
        "": "Sound, lips, or both, in quiet, in babble of 20 voices and beside one other talker.",
        "audio": "What is read from sound alone.",
        "audiovisual": "What is read from sound and lips.",
        "visual": "What is read from lips alone, which no noise disturbs.",
    }
    chosen = {"": panels, "audio": panels[:1], "audiovisual": panels[1:], "visual": ()}
    return tuple(
        View(
            {"": "All", **MODALITIES}[modality],
            NOISE,
            tuple(column.task for column in NOISE.columns if not modality or column.task.endswith(f"_{modality}")),
            text,
            chosen[modality],
        )
        for modality, text in about.items()
    )


def _talker_views() -> tuple[View, ...]:
    about = {
        "named": "Two or three people talk at once; one is asked for by place, and what they say is to be read.",
        "sound": "The same mixtures from sound alone, which does not know whom to read.",
        "neighbour": "The wrong person asked for on purpose, measured against the right sentence: high is right.",
    }
    views = []
    for read, text in about.items():
        panels = tuple(
            Panel(f"{people} people", tuple((r, f"{people}_{key}_{read}") for r, key in TALKER_RATIOS))
            for people in (2, 3)
        )
        tasks = tuple(task for panel in panels for _, task in panel.points)
        views.append(View(READ[read], TALKERS, tasks, text, panels))
    silent = tuple(column.task for column in TALKERS.columns if "_silent_" in column.task)
    text = "The person asked for is silent, and nothing is to be read: wrong words a minute."
    return (*views, View("Silent", TALKERS, silent, text, unit="wrong words a minute"))


def _question_views() -> tuple[View, ...]:
    about = {
        "own": "Each question about its own picture: the overlap of what is shown with what is meant.",
        "others": "Each question about a picture that it isn't about: low is right, the question is read.",
        "blind": "The model's view of the picture replaced by zeros: low is right, the picture is looked at.",
    }
    return tuple(
        View(ASKED[asked], SCENE_QUESTIONS, tuple(f"{asked}_{family}" for family in FAMILIES), text)
        for asked, text in about.items()
    )


def _object_views() -> tuple[View, ...]:
    about = {
        SCENES: "200 generated scenes: names, sentences, and objects that are pointed at.",
        VIDEOS: "100 generated videos: objects followed by name, from the first frame, or by sentence.",
    }
    public = "Published protocol, figures from the models' cards."
    boards = (SCENES, VIDEOS, COCO, *REFERRING, DAVIS)
    return tuple(
        View(board.title, board, tuple(column.task for column in board.columns), about.get(board, public))
        for board in boards
    )


TABS: dict[str, tuple[View, ...]] = {
    "Noise": _noise_views(),
    "Talkers": _talker_views(),
    "Objects": _object_views(),
    "Questions": _question_views(),
}
