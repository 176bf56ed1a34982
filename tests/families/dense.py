"""Families whose layers are all attention and one feed-forward network."""

from families.family import Family

DENSE = (
    Family("llama", {"tie_word_embeddings": True}),
    Family("qwen3"),
    Family("mistral"),
    Family("gemma2", {"query_pre_attn_scalar": 16}),
    Family(
        "granite",
        {
            "embedding_multiplier": 12.0,
            "logits_scaling": 3.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.0625,
        },
    ),
)
