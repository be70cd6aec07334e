"""A recogniser of other authors by name: fetched from the Hub, converted into the cache, and there from then on."""

import pytest

from lookhear.training.avsr import published
from tests.loopback_hub import Repository
from tests.training.avsr.test_published import save


def test_a_name_is_fetched_and_converted_once(here, tmp_path, capsys):
    made = tmp_path / "made"
    made.mkdir()
    save(made, "vsr-ml")
    _, repository = published.HUB_NAMES["vsr-ml-lrs3-visual"]
    here.repositories["model", repository] = Repository({})
    here.repositories["model", repository].commit({file.name: file.read_bytes() for file in made.iterdir()})
    folder = published.converted_by_name("vsr-ml-lrs3-visual")
    assert folder == tmp_path / "home" / "lookhear" / "vsr-ml-lrs3-visual" and (folder / "config.json").is_file()
    assert published.KINDS["vsr-ml"].terms in capsys.readouterr().err
    here.calls.clear()
    assert published.converted_by_name("vsr-ml-lrs3-visual") == folder and not here.calls


def test_a_repository_that_is_not_there_is_one_line(here):
    with pytest.raises(
        ValueError, match=r"^checkpoint 'Amanvir/LRS3_V_WER19.1' is no folder, and the Hub gave none: "
    ):
        published.converted_by_name("vsr-ml-lrs3-visual")
