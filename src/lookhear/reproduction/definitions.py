"""Definitions of tables: a YAML file for each paper says what its tables need and show, and what was published.

A table's rows are models, its columns are figures of measurements. A row's model is a training with the name of its
folder; `runs/NAME` and `prepared/NAME` in its recipe are other trainings and preparations, `data/NAME` is a source. So
nothing but the recipes says what a training needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from lookhear.training.recipe_reading import Count, CountOrZero, NotNegative, Range, Share, fill, read_value

FOLDER = Path(__file__).parent


@dataclass
class Source:
    """
    Something that the tables need and that is not made here.

    Attributes:
        what: what it is, for the reader.
        id: Hub id by which recipes name it, if they do; without a local copy it is downloaded.
    """

    what: str = ""
    id: str | None = None


@dataclass
class Preparation:
    """
    A part of a corpus that `lookhear prepare` turns into shards.

    Attributes:
        source: name of the corpus' source.
        corpus: its layout, as `lookhear prepare` names it.
        split: part of the corpus; None: all.
        clips: number of clips, as far as it is known.
        hours: of video, likewise.
    """

    source: str = ""
    corpus: Literal["folder", "grid", "lrs2", "lrs3", "lrw"] = "folder"
    split: str | None = None
    clips: CountOrZero = 0
    hours: NotNegative = 0.0


@dataclass
class Training:
    """
    A training by a recipe.

    Attributes:
        recipe: a shipped recipe, or a file beside the tables' file.
        set: `section.field=value`, what differs from the recipe.
        seconds: of a batch on one GPU, forward and back, at the most; None: not known.
        once: hours of one GPU before the first step, for what is computed once.
        memory: GiB on each GPU; None: not known.
        gpus: of the published training.
    """

    recipe: str = ""
    set: list[str] = field(default_factory=list)
    seconds: NotNegative | None = None
    once: NotNegative = 0.0
    memory: NotNegative | None = None
    gpus: Count = 1


@dataclass
class Measure:
    """
    How a table's models are measured.

    Attributes:
        kind: `speech` (error rates), `words` (accuracy of words read from lips), `objects` and `questions` (a protocol
            of `lookhear evaluate glee`), or `few-shot` (ODinW-13 after training on some pictures of each data set).
        data: name of a preparation or of a source.
        split: part of the source; None: the protocol's own.
        images: name of the source with the pictures, where they lie elsewhere.
        protocol: of objects and questions.
        tracking: of videos.
        limit: the first clips, pictures or videos only.
        batch_size: clips or pictures that are read together; None: as `lookhear evaluate` does.
        modality: of speech; None: the model's own.
        noise: of speech: `babble`, `human` or `talker`.
        snr: decibels, and `clean`.
        noise_probability: of each clip to be disturbed, above 0.
        num_beams: of the search; None: the checkpoint's.
        ctc_weight: in the search; None: the checkpoint's. A model without a trained CTC head ignores it.
        seed: of noise, intervals and of a first selection of pictures.
        shots: objects of each class to train on; None: all pictures.
        seeds: of the selections of pictures, of each of which a detector is trained.
        epochs: of these trainings.
        hours: that it takes on one GPU; None: not known.
    """

    kind: Literal["speech", "words", "objects", "questions", "few-shot"] = "speech"
    data: str = ""
    split: str | None = None
    images: str | None = None
    protocol: str | None = None
    tracking: Literal["memory", "minvis"] = "memory"
    limit: Count | None = None
    batch_size: Count | None = None
    modality: Literal["audio", "visual", "audiovisual"] | None = None
    noise: list[str] = field(default_factory=lambda: ["babble"])
    snr: list[float | str] = field(default_factory=lambda: ["clean"])
    noise_probability: Annotated[float, Range(0, 1, above=True)] = 1.0
    num_beams: Count | None = None
    ctc_weight: Share | None = None
    seed: int = 0
    shots: Count | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    epochs: Annotated[float, Range(0, above=True)] = 12.0
    hours: NotNegative | None = None


@dataclass
class Column:
    """
    A column of a table.

    Attributes:
        measure: name of the table's measurement.
        figure: its figure, a fraction, shown in per cent.
        better: whether lower or higher figures are better.
    """

    measure: str = ""
    figure: str = ""
    better: Literal["lower", "higher"] = "higher"


@dataclass
class Row:
    """
    A row of a table.

    Attributes:
        name: what the paper calls it.
        model: name of the training; None for a row of others, which is published only.
        columns: those that this row has; None: all.
        published: the paper's figures in per cent, by column.
        change: by how much the paper says that a figure is better than in the row before, in points, by column.
        source: where the published figures stand, or what they follow from.
    """

    name: str = ""
    model: str | None = None
    columns: list[str] | None = None
    published: dict[str, float] = field(default_factory=dict)
    change: dict[str, float] = field(default_factory=dict)
    source: str = ""


@dataclass
class Table:
    """
    A table or figure.

    Attributes:
        title: what it shows.
        source: where it stands in the paper.
        measures: by name.
        columns: by heading.
        rows: in the paper's order.
        picture: whether a picture has a line for each row, over the columns, or one for each column, over the rows.
        note: what the reader has to know.
    """

    title: str = ""
    source: str = ""
    measures: dict[str, Measure] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    picture: Literal["rows", "columns"] | None = None
    note: str = ""

    def columns_of(self, row: Row) -> list[str]:
        """Returns the headings of the columns that a row has a figure in."""
        return list(self.columns) if row.columns is None else row.columns


@dataclass
class Paper:
    """
    A paper's tables.

    Attributes:
        title: of the paper.
        link: to it.
        basis: what the estimates of hours and memory rest on.
        sources: what is needed, by name.
        preparations: by name.
        trainings: by name.
        tables: by name.
    """

    title: str = ""
    link: str = ""
    basis: str = ""
    sources: dict[str, Source] = field(default_factory=dict)
    preparations: dict[str, Preparation] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, table in self.tables.items():
            self._check(name, table)
        for name, preparation in self.preparations.items():
            _known(preparation.source, self.sources, f"preparations.{name}.source")

    def _check(self, name: str, table: Table) -> None:
        """Raises a ValueError if a table names what the paper doesn't have."""
        for heading, column in table.columns.items():
            _known(column.measure, table.measures, f"tables.{name}.columns.{heading}.measure")
        for number, row in enumerate(table.rows):
            place = f"tables.{name}.rows[{number}]"
            if row.model is not None:
                _known(row.model, self.trainings, f"{place}.model")
            for heading in (*(row.columns or ()), *row.published, *row.change):
                _known(heading, table.columns, f"{place}, column")
        for measure_name, measure in table.measures.items():
            place = f"tables.{name}.measures.{measure_name}"
            _known(measure.data, {**self.preparations, **self.sources}, f"{place}.data")
            if measure.images is not None:
                _known(measure.images, self.sources, f"{place}.images")
            if measure.kind in ("objects", "questions") and measure.protocol is None:
                raise ValueError(f"{place} needs a protocol, one of `lookhear evaluate glee --protocol`")


def read_papers(file: str | Path | None = None) -> list[Paper]:
    """
    Reads the packaged tables, or a file of one's own.

    Args:
        file: YAML file with the fields of [`Paper`]; None: the packaged ones.

    Raises:
        ValueError: there is no such file, a field does not exist, or a table names what the file does not have.
    """
    if file is None:
        return [_read(path) for path in sorted(FOLDER.glob("*.yaml"))]
    if not Path(file).is_file():
        raise ValueError(f"--tables {str(file)!r} is not a file; write one with the fields of Paper, or leave it out")
    return [_read(Path(file))]


def find_paper(name: str, papers: list[Paper]) -> Paper:
    """
    Returns the paper that has a table.

    Args:
        name: of the table.
        papers: which may have it.

    Raises:
        ValueError: none has it; all tables are named.
    """
    for paper in papers:
        if name in paper.tables:
            return paper
    known = ", ".join(table for paper in papers for table in paper.tables)
    raise ValueError(f"table {name!r} is unknown; choose one of {known}")


def _read(path: Path) -> Paper:
    content = read_value(path.read_text(encoding="utf-8"), f"{path.name}") or {}
    try:
        return fill(Paper, content)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _known(name: str, names: dict, place: str) -> None:
    if name not in names:
        raise ValueError(f"{place} names {name!r}; there are {', '.join(names) or 'none'}")
