"""The command line: help, results on stdout, one clear line and exit code 2 for bad input."""

import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from lookhear import cli
from lookhear_command.shared_options import MODALITIES
from lookhear_command.transcribe import FORMATS

COMMANDS = ("transcribe", "perceive", "ask", "prepare", "train", "evaluate", "convert", "publish", "synthesize")
COMMANDS += ("reproduce", "export", "serve", "demo", "live")
UNUSED = "datasets evaluate pandas sklearn matplotlib skimage gradio dlib jiwer peft".split()  # by inference
FAST = ["--num-beams", "1", "--ctc-weight", "1"]


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0 and f"example:\n  lookhear {command} " in out


def test_help_and_wrong_arguments_are_quick_and_need_no_heavy_import():
    """In a process of its own: torch and transformers alone take seconds."""
    script = (
        "import sys; sys.argv = ['lookhear', *sys.argv[1:]]; import lookhear_command\n"
        "try: lookhear_command.main()\n"
        "finally: assert not {'torch', 'transformers', 'lookhear'} & set(sys.modules)"
    )
    start = time.monotonic()
    shown = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and all(command in shown.stdout for command in COMMANDS)
    assert time.monotonic() - start < 3
    wrong = subprocess.run([sys.executable, "-c", script, "transcribe"], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["transcribe", "perceive"])
def test_a_command_imports_no_package_that_it_has_no_use_for(command, talking_clips, tmp_path):
    """In a process of its own: packages for training, measuring and drawing, each of which takes its time."""
    picture = tmp_path / "grey.png"
    Image.new("RGB", (96, 96), "grey").save(picture)
    arguments = {"transcribe": [talking_clips / "0.mp4", *FAST], "perceive": [picture, "--labels", "star"]}[command]
    script = "import sys, lookhear_command; code = lookhear_command.main(); print(*sys.modules); sys.exit(code)"
    call = [sys.executable, "-c", script, command, *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not set(UNUSED) & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe"], "FILE"),
        (["transcribe", "a.mp4", "--modality", "lips"], "'lips'"),
        (["transcribe", "a.mp4", "--num-beams", "-2"], "--num-beams"),
        (["transcribe", "a.mp4", "--ctc-weight", "2"], "--ctc-weight"),
        (["transcribe", "a.mp4", "--search", "quick"], "'quick'"),
        (["transcribe", "a.mp4", "--format", "doc"], "'doc'"),
        (["transcribe", "a.mp4", "--dtype", "float8"], "'float8'"),
        (["transcribe", "a.mp4", "--chunk-length", "1"], "--chunk-length"),
        (["transcribe", "a.mp4", "--audio-track", "-1"], "--audio-track"),
        (["transcribe", "a.mp4", "--channel", "middle"], "--channel"),
        (["transcribe", "a.mp4", "b.mp4", "--audio", "c.wav"], "--audio applies to a single video"),
        (["transcribe", "a.mp4", "--audio-offset", "1"], "--audio, which is missing"),
        (["transcribe", "a.mp4", "--audio", "c.wav", "--audio-offset", "soon"], "--audio-offset"),
        (["transcribe", "a.mp4", "b.mp4", "--format", "srt"], "--output"),
        (["transcribe", "x/a.mp4", "y/a.mp4", "--output", "out"], "both"),
        (["evaluate", "avsr", "--model", ".", "--data", "nowhere", "--modality", "smell"], "'smell'"),
        (["evaluate", "avsr", "--data", "nowhere", "--snr", "clean,,5"], "--snr"),
        (["evaluate", "avsr"], "--data"),
        (["evaluate", "avsr", "--data", ".", "--model", "./nowhere"], "no folder ./nowhere"),
        (["demo", "--model", "/no/where/at/all"], "no folder /no/where/at/all"),
        (["train", "nowhere.yaml"], "nowhere.yaml"),
        (["prepare", "folder", "nowhere", "out"], "nowhere"),
        (["prepare", "tape", "nowhere", "out"], "'tape'"),
        (["synthesize", "--text", "hello", "-o", "clip.avi"], "clip.avi"),
        (["synthesize", "--sound", "a.wav", "-o", "clip.mp4"], "--sound and --phones go together"),
        (["synthesize", "--sound", "a.wav", "--phones", "a.json", "-o", "clip.mp4"], "a.json is not a file"),
        (["transcribe", "a.mp4", "--speech-confidence", "2"], "--speech-confidence"),
        (["evaluate", "words", "--data", ".", "--dtype", "bfloat16"], "--dtype applies to avsr only"),
        (["evaluate", "words", "--data", ".", "--non-speech"], "--non-speech applies to avsr only"),
        (["evaluate", "avsr", "--data", ".", "--non-speech", "--snr", "5"], "--snr does not apply to --non-speech"),
        (["serve", "--seconds", "0"], "--seconds"),
        (["serve", "--host", "192.0.2.1", "--port", "0"], "cannot be listened on"),
        (["dance"], "'dance'"),
        ([], "COMMAND"),
    ],
)
def test_bad_input_ends_in_one_line(run, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and message in err
    assert err.count("\n") == 1 and err.startswith("lookhear")


def test_transcribe_prints_text(run, tiny_checkpoint, talking_clips):
    code, out, _ = run("transcribe", talking_clips / "0.mp4", "--model", tiny_checkpoint, *FAST)
    assert code == 0 and out.count("\n") == 1
    code, again, _ = run(
        "transcribe", talking_clips / "0.mp4", "--model", tiny_checkpoint, "--modality", "audio", *FAST
    )
    assert code == 0 and again.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_transcribe_and_evaluate_compute_in_a_shorter_type(run, tiny_checkpoint, talking_clips, monkeypatch, dtype):
    from lookhear import AvsrForConditionalGeneration

    seen, generate = set(), AvsrForConditionalGeneration.generate

    def watched(self, *arguments, **settings):
        seen.add(str(self.dtype))
        return generate(self, *arguments, **settings)

    monkeypatch.setattr(AvsrForConditionalGeneration, "generate", watched)
    arguments = ["--model", tiny_checkpoint, "--dtype", dtype, *FAST]
    code, out, _ = run("transcribe", talking_clips / "0.mp4", *arguments)
    assert code == 0 and out.count("\n") == 1 and seen == {f"torch.{dtype}"}
    seen.clear()
    code, out, _ = run("evaluate", "avsr", "--data", talking_clips, "--modality", "audio", *arguments)
    assert code == 0 and "audio" in out and seen == {f"torch.{dtype}"}


@pytest.mark.slow
def test_transcribe_and_evaluate_take_a_search(run, tiny_checkpoint, talking_clips):
    clip = ("transcribe", talking_clips / "0.mp4", "--model", tiny_checkpoint)
    _, expected, _ = run(*clip, *FAST)
    assert run(*clip, "--search", "greedy")[:2] == (0, expected)
    code, out, _ = run(*clip, "--search", "two_pass", "--num-beams", "1", "--ctc-weight", "1")
    assert code == 0 and out.strip()


def test_a_language_model_takes_part_in_transcribe(run, tiny_checkpoint, talking_clips, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(2)
    shape = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 128, "tie_word_embeddings": False}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, bos_token_id=39, eos_token_id=39, **shape))
    torch.nn.init.normal_(model.lm_head.weight, std=3.0)
    model.save_pretrained(tmp_path)
    command = ("transcribe", talking_clips / "0.mp4", "--model", tiny_checkpoint)
    texts = [
        run(*command, *options)[1] for options in ((), ("--language-model", tmp_path, "--language-model-weight", 2))
    ]
    assert texts[0] != texts[1]
    code, _, message = run(*command, "--language-model-weight", 2)
    assert code == 2 and "`language_model_weight` is of no use without a `language_model`" in message


def test_transcribe_several_files_with_one_that_is_broken(run, tiny_checkpoint, talking_clips, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_text("this is no video")
    files = [talking_clips / "0.mp4", broken, talking_clips / "2.wav"]
    code, out, err = run("transcribe", *files, "--model", tiny_checkpoint, "--batch-size", 3, *FAST)
    assert code == 2
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(files[0]), str(files[2])]
    assert len([line for line in err.splitlines() if "broken.mp4" in line and "error" in line]) == 1
    assert "Traceback" not in err


def test_each_file_of_a_batch_is_opened_once(run, tiny_checkpoint, talking_clips, tmp_path, monkeypatch):
    """Also where one of them turns out to be bad only while it is read."""
    from lookhear.processing.avsr import media_avsr
    from lookhear.processing.avsr.media_source_avsr import MediaError

    opened, items = [], media_avsr.MediaStream._items

    def counted(self):
        opened.append(self.name)
        if "bad" in self.name:
            raise MediaError(f"{self.name} breaks off")
        return items(self)

    monkeypatch.setattr(media_avsr.MediaStream, "_items", counted)
    (tmp_path / "bad.mp4").write_bytes((talking_clips / "0.mp4").read_bytes())
    files = [talking_clips / "0.mp4", tmp_path / "bad.mp4", talking_clips / "1.mp4"]
    code, out, err = run("transcribe", *files, "--model", tiny_checkpoint, *FAST)
    assert code == 2 and [line.split("\t")[0] for line in out.splitlines()] == [str(files[0]), str(files[2])]
    assert sorted(opened) == sorted(repr(str(file)) for file in files) and err.count("bad.mp4' breaks off") == 1


def test_transcribe_prints_times(run, tiny_checkpoint, talking_clips):
    clip = talking_clips / "2.wav"
    arguments = ("transcribe", clip, "--model", tiny_checkpoint, *FAST)
    code, out, _ = run(*arguments, "--timestamps", "word")
    assert code == 0 and all(line.startswith("[00:00:0") for line in out.splitlines())
    assert [line.split("] ")[1] for line in out.splitlines()] == run(*arguments)[1].split()


def test_transcribe_reads_sound_of_another_file(run, tiny_checkpoint, talking_clips):
    options = ("--model", tiny_checkpoint, "--format", "json", *FAST)
    code, out, _ = run("transcribe", talking_clips / "0.mp4", "--audio", talking_clips / "2.wav", *options)
    report = json.loads(out)["report"]
    assert code == 0 and "2.wav" in report["source"] and report["modality"] == "audiovisual"
    moved = ("--audio-offset", "2.5")
    out = run("transcribe", talking_clips / "0.mp4", "--audio", talking_clips / "2.wav", *moved, *options)[1]
    assert json.loads(out)["report"]["duration"] == pytest.approx(
        2.5 + soundfile.info(talking_clips / "2.wav").duration, abs=0.05
    )
    code, _, err = run("transcribe", talking_clips / "0.mp4", "--audio-track", "fr", *options)
    assert code == 2 and "`audio_track`" in err and "no sound track 'fr'; it has 0" in err and err.count("error:") == 1
    code, _, err = run("transcribe", talking_clips / "0.mp4", "--channel", "5", *options)
    assert code == 2 and "`channel`: there is no channel 5" in err and err.count("error:") == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_transcribe_writes_every_format(run, tiny_checkpoint, talking_clips, tmp_path, kind):
    arguments = ["--model", tiny_checkpoint, "--format", kind, "--output", tmp_path / "new", *FAST]
    code, out, _ = run("transcribe", talking_clips / "2.wav", *arguments)
    path = tmp_path / "new" / f"2.{kind}"
    assert (code, out) == (0, f"{path}\n")
    if kind == "json":
        assert {"text", "confidence", "chunks", "report"} <= set(json.loads(path.read_text()))


@pytest.fixture
def long_sound(tmp_path):
    """Twelve seconds of noise with pauses, as a file."""
    wave = 0.1 * np.random.default_rng(0).standard_normal(12 * 16000).astype(np.float32)
    wave[2 * 16000 : 3 * 16000] = wave[6 * 16000 : 8 * 16000] = 0
    soundfile.write(tmp_path / "long.wav", wave, 16000)
    return tmp_path / "long.wav"


def test_a_long_file_has_a_bar_that_knows_its_length(run, tiny_checkpoint, long_sound):
    arguments = ["transcribe", long_sound, "--model", tiny_checkpoint, "--chunk-length", 2, *FAST]
    code, out, err = run(*arguments, "--progress")
    assert code == 0 and out.count("\n") == 1
    assert "long 100%" in err and "12/12 s" in err
    code, again, err = run(*arguments)
    assert (code, again) == (0, out) and "long 100%" not in err  # no terminal, no bar


def test_long_and_short_files_together(run, tiny_checkpoint, talking_clips, long_sound, tmp_path):
    files = [talking_clips / "0.mp4", long_sound, tmp_path / "missing.mp4", talking_clips / "2.wav"]
    arguments = ["--model", tiny_checkpoint, "--chunk-length", 4, *FAST]
    code, out, err = run("transcribe", *files, *arguments)
    assert code == 2 and "missing.mp4" in err
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == [str(files[0]), str(files[1]), str(files[3])]
    for file, text in rows:
        assert run("transcribe", file, *arguments)[1] == text + "\n"


@pytest.mark.parametrize(("stop", "code"), [(ValueError("the file ends here"), 2), (KeyboardInterrupt(), 130)])
def test_what_was_read_before_a_stop_is_written(run, tiny_checkpoint, long_sound, tmp_path, monkeypatch, stop, code):
    from lookhear.processing.avsr.clip_stream_avsr import ClipStream

    read_on = ClipStream.__next__
    arguments = ["transcribe", long_sound, "--model", tiny_checkpoint, "--chunk-length", 2, *FAST]
    whole = run(*arguments)[1].split()

    def stopped(self):
        piece = read_on(self)
        if piece.start >= 9:
            raise stop
        return piece

    monkeypatch.setattr(ClipStream, "__next__", stopped)
    result, out, err = run(*arguments, "--format", "json", "--timestamps", "word", "--output", tmp_path)
    assert (result, out) == (code, f"{tmp_path / 'long.json'}\n")
    assert "s were read)" in err and "Traceback" not in err
    part = json.loads((tmp_path / "long.json").read_text())
    assert part["text"] and part["text"].split() == whole[: len(part["text"].split())]
    assert len(part["chunks"]) < len(whole) and 2 < part["report"]["duration"] < 9


def test_unreadable_files_are_named(run, tiny_checkpoint, tmp_path, caplog):
    (tmp_path / "empty.mp4").touch()
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan, np.float32), 16000, subtype="FLOAT")
    for name in ("empty.mp4", "missing.mp4"):
        code, out, err = run("transcribe", tmp_path / name, "--model", tiny_checkpoint, *FAST)
        assert (code, out) == (2, "") and name in err and "Traceback" not in err
    code, out, _ = run("transcribe", tmp_path / "nan.wav", "--model", tiny_checkpoint, *FAST)
    assert code == 0 and out and "nan.wav" in caplog.text and "not numbers" in caplog.text  # logging writes to stderr


def test_a_model_that_is_not_there(run, talking_clips, tmp_path):
    code, out, err = run("transcribe", talking_clips / "2.wav", "--model", tmp_path / "no-model")
    assert (code, out) == (2, "") and "no-model" in err and "Traceback" not in err


def test_evaluate_writes_what_it_prints(run, tiny_checkpoint, talking_clips, tmp_path):
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "picture.png")}
    options = ["--json", files["json"], "--csv", files["csv"], "--picture", files["picture.png"]]
    conditions = ["--modality", "audio,visual", "--snr", "-5,clean", "--noise", "talker"]
    code, out, _ = run(
        "evaluate", "avsr", "--data", talking_clips, "--model", tiny_checkpoint, *conditions, *options, *FAST
    )
    assert code == 0 and all(file.stat().st_size for file in files.values())
    rows = json.loads(files["json"].read_text())["results"]
    assert [(row["modality"], row["noise"], row["snr"]) for row in rows] == [
        (modality, "talker", snr) for modality in ("audio", "visual") for snr in ("-5", "clean")
    ]
    assert all(set(row) == {"modality", "noise", "snr", "wer", "cer", "interval", "clips", "rtfx"} for row in rows)
    assert all(row["rtfx"] > 0 for row in rows)
    assert all(row["clips"] == 3 and row["interval"][0] <= row["wer"] <= row["interval"][1] for row in rows)
    assert len(out.splitlines()) == 2 + len(rows)


def test_evaluate_leaves_out_what_cannot_be_read(run, tiny_checkpoint, talking_clips, tmp_path):
    rows = [json.loads(line) for line in (talking_clips / "metadata.jsonl").read_text().splitlines()]
    rows = [*rows[:1], {"file_name": "bad.mp4", "text": "bin"}, rows[2]]
    for row in rows:
        good = talking_clips / row["file_name"]
        (tmp_path / row["file_name"]).write_bytes(good.read_bytes() if good.exists() else b"no video")
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("evaluate", "avsr", "--data", tmp_path, "--model", tiny_checkpoint, "--modality", "audio", *FAST)
    code, out, err = run(*arguments, "--json", tmp_path / "out.json")
    assert code == 0 and "bad was left out: " in err and "bad.mp4' is not a media file" in err
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["results"][0]["clips"] == 2 and [problem["id"] for problem in found["problems"]] == ["bad"]
    code, out, err = run(*arguments, "--strict")
    assert code == 2 and out == "" and "bad.mp4' is not a media file" in err


def test_prepare_prints_its_summary(run, tiny_checkpoint, talking_clips, tmp_path):
    code, out, _ = run("prepare", "folder", talking_clips, tmp_path / "shards", "--model", tiny_checkpoint)
    assert code == 0 and "3 clips" in out
    assert list((tmp_path / "shards").glob("*.parquet"))


def test_train_gets_recipe_and_settings(run, monkeypatch, tmp_path):
    from lookhear.training.avsr import train

    called = []
    monkeypatch.setattr(train, "main", lambda recipe, settings: called.append((recipe, settings)))
    (tmp_path / "mine.yaml").touch()
    assert run("train", tmp_path / "mine.yaml", "training.max_steps=1")[0] == 0
    monkeypatch.chdir(tmp_path)
    assert run("train", "grid_tiny.yaml")[0] == 0
    (mine, settings), (shipped, _) = called
    assert mine == tmp_path / "mine.yaml" and settings == ["training.max_steps=1"]
    assert shipped.is_file() and shipped.name == "grid_tiny.yaml"


@pytest.mark.parametrize(
    ("recipe", "module"),
    [
        ("stage1_lite.yaml", "mixture.train_corpora"),
        ("scenes_tiny.yaml", "scenes.train"),
        ("own.yaml", "scenes.train"),
    ],
)
def test_a_recipe_says_which_training_it_is_for(run, monkeypatch, tmp_path, recipe, module):
    import importlib

    called = []
    training = importlib.import_module(f"lookhear.training.glee.{module}")
    monkeypatch.setattr(training, "main", lambda recipe, settings: called.append(recipe.name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("system: glee_scenes")
    assert run("train", recipe)[0] == 0 and called == [recipe]


def test_a_recipe_for_no_training_is_refused(run, tmp_path):
    (tmp_path / "own.yaml").write_text("system: gleee")
    code, _, error = run("train", tmp_path / "own.yaml")
    assert code == 2 and "avsr, glee, glee_scenes" in error and error.count("\n") == 1


def test_synthesize_prints_its_files(run, tmp_path):
    code, out, _ = run(
        "synthesize", "--text", "bin", "--portrait", "hopper", "--seed", 3, "-o", tmp_path / "a" / "clip.mp4"
    )
    assert code == 0 and out.splitlines() == [str(tmp_path / "a" / "clip.mp4"), str(tmp_path / "a" / "clip.json")]
    assert json.loads((tmp_path / "a" / "clip.json").read_text())["words"][0]["word"] == "bin"


def test_demo_reads_a_given_video(run, tiny_checkpoint, talking_clips, tmp_path):
    video = talking_clips / "0.mp4"
    code, out, _ = run("demo", "--video", video, "--model", tiny_checkpoint, "--output", tmp_path / "demo")
    assert code == 0
    for name in ("clip.srt", "captioned.mp4", "reading.png"):
        assert str(tmp_path / "demo" / name) in out and (tmp_path / "demo" / name).stat().st_size
    assert all(modality in out for modality in MODALITIES) and "said:" not in out


def test_demo_reads_sound_without_picture(run, tiny_checkpoint, talking_clips, tmp_path):
    code, out, _ = run("demo", "--video", talking_clips / "2.wav", "--model", tiny_checkpoint, "--output", tmp_path)
    assert code == 0 and "captioned.mp4" not in out and (tmp_path / "reading.png").exists()


@pytest.mark.slow
def test_synthesize_makes_a_scene(run, tmp_path):
    code, out, _ = run("synthesize", "--scene", "--seed", 4, "-o", tmp_path / "scene.png")
    assert code == 0 and out.split() == [str(tmp_path / "scene.png"), str(tmp_path / "scene.json")]
    facts = json.loads((tmp_path / "scene.json").read_text())
    assert 3 <= len(facts["objects"]) <= 8 and all(e["object"] < len(facts["objects"]) for e in facts["expressions"])
    first = (tmp_path / "scene.png").read_bytes()
    assert run("synthesize", "--scene", "--seed", 4, "-o", tmp_path / "scene.png")[0] == 0
    assert (tmp_path / "scene.png").read_bytes() == first
    code, out, _ = run("synthesize", "--scene", "--seed", 4, "-o", tmp_path / "moving.mp4")
    assert code == 0 and out.split() == [str(tmp_path / "moving.mp4"), str(tmp_path / "moving.json")]
    facts = json.loads((tmp_path / "moving.json").read_text())
    assert all(len(thing["boxes"]) == 60 for thing in facts["objects"])
    code, _, err = run("synthesize", "--scene", "-o", tmp_path / "scene.txt")
    assert code == 2 and "scene.txt" in err


@pytest.mark.slow
def test_demo_synthesizes_its_own_clip(run, tiny_checkpoint, tmp_path):
    code, out, _ = run("demo", "--model", tiny_checkpoint, "--output", tmp_path)
    assert code == 0 and out.startswith("said: bin blue at f two now")
    assert (tmp_path / "clip.mp4").exists()


@pytest.mark.shared
def test_packaged_checkpoint_reads_grid(run, shared, tmp_path):
    """From video files to text with the checkpoint that is part of the project; 8 clips that it was not trained on."""
    conditions = ["--modality", "audio,visual,audiovisual", "--limit", 8, "--json", tmp_path / "out.json"]
    code, _, _ = run("evaluate", "avsr", "--data", shared / "data" / "grid_s1" / "test", *conditions)
    assert code == 0
    rates = {row["modality"]: row["wer"] for row in json.loads((tmp_path / "out.json").read_text())["results"]}
    assert rates["audio"] <= 0.11 and rates["visual"] <= 0.25 and rates["audiovisual"] <= 0.07, rates


def test_packaged_checkpoint_reads_a_synthesized_portrait(run, tmp_path):
    clip = tmp_path / "clip.mp4"
    assert run("synthesize", "--text", "lay green with b nine soon", "--seed", 5, "-o", clip)[0] == 0
    code, out, _ = run("transcribe", clip)
    read = out.upper().split()
    assert code == 0 and len(read) == 6
    assert sum(word in read for word in "LAY GREEN WITH B NINE SOON".split()) >= 5, out


SPEECH = "is a speech model (avsr), for lookhear transcribe; this command needs a model that"


@pytest.mark.parametrize(
    ("card", "command", "message"),
    [
        ("avsr-grid-tiny", "perceive a.png --labels dog", f"{SPEECH} finds objects (glee)"),
        ("avsr-grid-tiny", "ask a.png What?", f"{SPEECH} answers questions about images (lisa_glee)"),
        ("glee-tiny", "transcribe a.mp4", "is a model that finds objects (glee), for lookhear perceive; this command"),
        ("glee-tiny", "evaluate avsr --data clips", "needs a speech model (avsr)"),
        (
            "lisa-glee-tiny",
            "perceive a.png --labels dog",
            "questions about images (lisa_glee), for lookhear ask; this",
        ),
    ],
)
def test_a_model_of_another_kind_is_named(repository, capsys, card, command, message):
    model = str(repository / "model_cards" / card)
    assert cli.main([*command.split(), "--model", model]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"--model {model} is a " in line and message in line


def test_a_model_of_the_hub_is_of_the_right_kind_before_it_is_loaded(repository):
    """Its configuration says it; a folder stands in for it here."""
    from lookhear.commands.loading import load_pipeline

    with pytest.raises(ValueError, match=re.escape(SPEECH)):
        load_pipeline("object-perception", str(repository / "model_cards" / "avsr-grid-tiny"))
