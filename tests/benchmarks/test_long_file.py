"""benchmarks/long_file.py: a large encoder does as much work as the small one that reads."""

import pytest

from lookhear import AvsrConfig


@pytest.mark.slow
def test_a_file_of_several_sentences_is_encoded_once(repository, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import avsr_pipeline
    import long_file

    length = avsr_pipeline.make_video(tmp_path / "short.mp4")
    total = avsr_pipeline.repeat_video(tmp_path / "short.mp4", tmp_path / "long.mp4", length, 3 * length)
    small = AvsrConfig(hidden_size=32, encoder_layers=1, fusion_layers=1, num_attention_heads=2, intermediate_size=32)
    found = long_file.read(repository / "model_cards" / "avsr-grid-tiny", tmp_path / "long.mp4", small)
    assert found["frames"] == pytest.approx(avsr_pipeline.FPS * total, abs=20)
    assert 0 < found["of the large encoder"] < found["seconds"]
    assert found["text"] == " ".join(avsr_pipeline.SENTENCES * 3).lower()
