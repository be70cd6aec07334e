"""The whole benchmark: clips, mixtures of them, and what a recogniser reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lookhear.evaluation.two_talkers.composing import compose_mixtures
from lookhear.evaluation.two_talkers.measuring import Recogniser, TwoTalkersResult, evaluate_two_talkers
from lookhear.evaluation.two_talkers.planning import SNRS, plan_mixtures

PORTRAITS = 30  # talking portraits that are made where no clips are given
PORTRAIT_SEED = 515151  # the packaged checkpoint was trained with others


def run_two_talkers(
    asr: Recogniser,
    output: str | Path,
    *,
    data: str | Path | None = None,
    others: str | Path | None = None,
    talking: int = 200,
    silent: int = 100,
    snrs: Sequence[float] = SNRS,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    allow_outside: bool = False,
    **settings: Any,
) -> list[TwoTalkersResult]:
    """
    Composes mixtures in `output/mixtures` and reads them. An interrupted run resumes.

    Args:
        asr: the pipeline `audio-visual-speech-recognition`.
        output: folder; made if absent.
        data: folder with a `metadata.jsonl` (`file_name`, `text`, `words` with their times) beside videos of one face
            each, whom the recogniser can read. None makes talking portraits in `output/clips`, which takes some
            seconds a clip.
        others: such a folder of people who stand and talk beside them; `words` may be missing.
        talking: number of mixtures in which the target talks.
        silent: number of mixtures in which the target is silent.
        snrs: levels of the target's voice over the others, in dB.
        seed: of the plan.
        progress: called with a label, the number done, and their number.
        allow_outside: whether a `metadata.jsonl` may name files outside of its folder.
        settings: of `evaluate_two_talkers`.

    Raises:
        ValueError: an argument or a folder is unusable.
        MediaError: a clip cannot be read.
    """
    from lookhear.training.avsr.corpora import read_folder
    from lookhear.training.avsr.synthesis import synthesize_corpus

    output, report = Path(output), progress or (lambda label, done, total: None)
    if data is None:
        made = synthesize_corpus(
            output / "clips", PORTRAITS, PORTRAIT_SEED, progress=lambda *done: report("portraits", *done)
        )
        data = made.parent
    targets = list(read_folder(data, allow_outside=allow_outside))
    neighbours = list(read_folder(others, allow_outside=allow_outside)) if others is not None else []
    mixtures = plan_mixtures(targets, neighbours, talking=talking, silent=silent, snrs=snrs, seed=seed)
    folder = compose_mixtures(mixtures, output / "mixtures", lambda *done: report("mixtures", *done)).parent
    return evaluate_two_talkers(asr, folder, output, progress=report, **settings)
