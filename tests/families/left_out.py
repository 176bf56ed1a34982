"""Model types that transformers lists among language models, and of which the catalogue has no tiny model."""

from collections.abc import Mapping
from types import MappingProxyType

ENCODER = "an encoder; as a decoder no checkpoint of it was trained"
BOTH = "an encoder and a decoder: the prompt is read by the one, the answer written by the other"
SPEECH = "turns speech into text"
MUSIC = "makes sound"
PICTURES = "describes a picture, without which it reads no text"
REASONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        ENCODER: (
            *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert"),
            *(
                "rembert",
                "roberta",
                "roberta-prelayernorm",
                "roc_bert",
                "roformer",
                "xlm-roberta",
                "xlm-roberta-xl",
                "xmod",
            ),
        ),
        BOTH: (
            *(
                "bart",
                "bigbird_pegasus",
                "blenderbot",
                "blenderbot-small",
                "marian",
                "mbart",
                "mvp",
                "pegasus",
                "plbart",
            ),
            *("prophetnet", "florence2", "pix2struct", "pp_formulanet", "t5gemma2", "udop", "vision-encoder-decoder"),
            *("trocr",),
        ),
        SPEECH: (
            *("whisper", "moss_transcribe_diarize", "fun_asr_nano", "glmasr", "granite_speech", "granite_speech_plus"),
            *("kyutai_speech_to_text", "nemo_speechlm", "omniasr", "qwen3_asr", "vibevoice_asr", "voxtral_realtime"),
        ),
        MUSIC: ("moshi", "musicgen", "musicgen_melody"),
        PICTURES: (
            *("git", "blip", "blip-2", "instructblip", "instructblipvideo", "kosmos-2", "kosmos-2.5", "pp_chart2table"),
            *("idefics",),
        ),
        "reads a text from both sides": ("cpmant", "xlnet"),
        "hashes positions at random: no two forward passes agree": ("reformer",),
        "drafts for a larger model, whose keys and values it reads": ("gemma4_assistant", "gemma4_unified_assistant"),
        "writes blocks of tokens by diffusion, not one after the other": ("diffusion_gemma",),
        "answers questions about a protein": ("evolla",),
        "gives actions of a robot": ("pi0",),
        "classifies pictures": ("shieldgemma2",),
        "has no forward of its own: its thinker is a model type by itself": ("qwen2_5_omni", "qwen3_omni_moe"),
    }
)
NO_LANGUAGE_MODEL: Mapping[str, str] = MappingProxyType(
    {model_type: reason for reason, model_types in REASONS.items() for model_type in model_types}
)
"""Those that are no causal language models of a text, with what they are instead."""
NOT_BUILT: Mapping[str, str] = MappingProxyType(
    {
        "gemma3n": "its class needs the packages timm and pillow",
        "fast_vlm": "its class needs the packages timm and pillow",
        "perception_lm": "its class needs the packages timm and pillow",
        "inkling_mm_model": "its class needs the package scipy",
    }
)
"""Language models of which no tiny one is made, with why."""
