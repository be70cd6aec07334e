"""AVSR: from a file to tensors, and back to text with times."""

from .captions_avsr import format_captions, make_sentences, write_captions
from .clip_report_avsr import ClipReport
from .clip_stream_avsr import MIN_FACE_SHARE, Clip, ClipPiece, ClipStream, read_clip
from .everyone_avsr import find_people
from .face_tracking_avsr import FaceTracker
from .feature_extraction_avsr import AvsrFeatureExtractor
from .landmarks_avsr import SAME_PERSON, MeshLandmarkDetector, make_detector
from .live_avsr import LiveSpeech
from .media_avsr import probe_media, read_audio, read_frames
from .media_source_avsr import MediaError, fetch_media
from .noise_avsr import babble, competing_talker, human_noise, mix_at_snr
from .pipeline_avsr import AudioVisualSpeechRecognitionPipeline
from .processing_avsr import AvsrProcessor, MouthRoiImageProcessor
from .rendering_avsr import draw_reading, write_captioned_video, write_speaker_video, write_video
from .tokenization_avsr import AvsrTokenizer, normalise_text

__all__ = [
    "MIN_FACE_SHARE",
    "AudioVisualSpeechRecognitionPipeline",
    "AvsrFeatureExtractor",
    "AvsrProcessor",
    "AvsrTokenizer",
    "Clip",
    "ClipPiece",
    "ClipReport",
    "ClipStream",
    "FaceTracker",
    "LiveSpeech",
    "MediaError",
    "MeshLandmarkDetector",
    "MouthRoiImageProcessor",
    "SAME_PERSON",
    "babble",
    "competing_talker",
    "draw_reading",
    "fetch_media",
    "find_people",
    "format_captions",
    "human_noise",
    "make_detector",
    "make_sentences",
    "mix_at_snr",
    "normalise_text",
    "probe_media",
    "read_audio",
    "read_clip",
    "read_frames",
    "write_captioned_video",
    "write_captions",
    "write_speaker_video",
    "write_video",
]
