"""What a saved checkpoint says about how it wants to be read is there again when it is loaded."""

from transformers import GenerationConfig

from lookhear_command.shared_options import packaged


def test_settings_of_the_pipeline_are_loaded_again(tiny_checkpoint):
    """transformers drops settings that are not its own from a file that says `_from_model_config`."""
    assert GenerationConfig.from_pretrained(tiny_checkpoint).lip_evidence == 0.0


def test_the_packaged_checkpoint_says_how_it_is_read():
    settings = GenerationConfig.from_pretrained(packaged("avsr-grid-tiny"))
    assert (settings.num_beams, settings.ctc_weight, settings.chunk_length_s, settings.lip_evidence) == (
        5,
        0.1,
        4,
        0.5,
    )
