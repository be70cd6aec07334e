"""Runs a protocol by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lookhear.evaluation.protocols.detection import run_coco, run_lvis, run_uvo
from lookhear.evaluation.protocols.grounding import run_omnilabel, run_refcoco
from lookhear.evaluation.protocols.odinw import run_odinw, run_odinw_13
from lookhear.evaluation.protocols.reasonseg import run_reasonseg
from lookhear.evaluation.protocols.run import ProtocolReport, ProtocolRun
from lookhear.evaluation.protocols.scene_questions import run_scene_questions
from lookhear.evaluation.protocols.stored_results import remove_stored
from lookhear.evaluation.protocols.track_everything import run_burst, run_tao
from lookhear.evaluation.protocols.video_instances import run_video_instances
from lookhear.evaluation.protocols.video_objects import run_davis, run_refer_youtube_vos, run_youtube_vos
from lookhear.evaluation.whole_files import write_text

PROTOCOLS: dict[str, Callable[[ProtocolRun], ProtocolReport]] = {
    "coco": run_coco,
    "lvis": run_lvis,
    "odinw": run_odinw,
    "odinw-13": run_odinw_13,
    "uvo": run_uvo,
    "refcoco": run_refcoco,
    "refcoco+": run_refcoco,
    "refcocog": run_refcoco,
    "omnilabel": run_omnilabel,
    "reasonseg": run_reasonseg,
    "scene-questions": run_scene_questions,
    "ytvis19": run_video_instances,
    "ytvis21": run_video_instances,
    "ovis": run_video_instances,
    "lvvis": run_video_instances,
    "uvo-video": run_video_instances,
    "davis": run_davis,
    "ytvos": run_youtube_vos,
    "refytvos": run_refer_youtube_vos,
    "tao": run_tao,
    "burst": run_burst,
}


def run_protocol(run: ProtocolRun) -> ProtocolReport:
    """
    Runs `run.name`, and writes `report.json` into the output folder.

    An interrupted run resumes where it stopped: predictions are saved in the output folder as they come.

    Raises:
        ValueError: no such protocol, a folder that is not laid out as it should be, or an output folder of another
            run.
    """
    if run.name not in PROTOCOLS:
        raise ValueError(f"protocol {run.name!r} is unknown; choose from {', '.join(PROTOCOLS)}")
    if run.limit is not None and run.limit < 1:
        raise ValueError(f"limit has to be at least 1, not {run.limit}")
    if run.batch_size < 1:
        raise ValueError(f"batch_size has to be at least 1, not {run.batch_size}")
    if run.overwrite:
        remove_stored(run.output)
    report = PROTOCOLS[run.name](run)
    write_text(run.output / "report.json", to_json(report))
    return report


def to_json(report: ProtocolReport) -> str:
    """Returns the report as JSON text; a figure that does not exist is null."""
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def format_report(report: ProtocolReport) -> str:
    """Returns the figures in per cent, one per line; then what was written, and the note."""
    lines = [f"{report.protocol} {report.split}: {report.count} {report.unit}"]
    width = max(map(len, report.metrics), default=0)
    lines += [f"{name.ljust(width)}  {_figure(value)}" for name, value in report.metrics.items()]
    return "\n".join([*lines, *(str(file) for file in report.files), *([report.note] if report.note else [])]) + "\n"


def _figure(value: Any) -> str:
    return f"{100 * value:6.2f}" if value == value else "     -"
