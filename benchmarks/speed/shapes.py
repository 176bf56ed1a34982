"""What is measured: sizes of student, teacher and batch. Weights are random, so a completion runs to its end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """A decoder like Qwen3 (https://arxiv.org/abs/2505.09388), with its embeddings as its head."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @property
    def layer_parameters(self) -> int:
        """Weights that a token is multiplied by in all layers."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.ffn)

    def forward_flops(self, tokens: int, scored: int, length: int) -> float:
        """Of `tokens` in sequences of `length`, of which `scored` go through the head; causal attention."""
        attention = self.layers * 2 * self.heads * self.head_dim * length
        return tokens * (2 * self.layer_parameters + attention) + 2 * scored * self.hidden * self.vocabulary


@dataclass(frozen=True)
class Shape:
    """One step: so many prompts, each with some completions, and one optimizer step."""

    student: ModelShape
    teacher: ModelShape
    prompts: int
    completions: int
    """Of each prompt."""
    prompt_tokens: int
    new_tokens: int
    lora_rank: int
    """0: all weights are trained."""
    device: str
    dtype: str
    trl_batch: tuple[int, ...]
    """TRL's `per_device_train_batch_size`: the first of these that fits in memory."""

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.prompt_tokens + self.new_tokens

    @property
    def scoring_flops(self) -> float:
        """One forward of the teacher."""
        return self._forward(self.teacher)

    @property
    def training_flops(self) -> float:
        """Forward, and twice as much backward; a LoRA is counted alike, though its base takes no gradient."""
        return 3 * self._forward(self.student)

    @property
    def sequences(self) -> int:
        """Completions of one step."""
        return self.prompts * self.completions

    @property
    def tokens(self) -> int:
        """Tokens that one step samples."""
        return self.sequences * self.new_tokens

    def __str__(self) -> str:
        """As a table's title has it."""
        each = f"{self.completions} x ({self.prompt_tokens} + {self.new_tokens}) tokens"
        return f"{self.prompts} prompts x {each}"

    def _forward(self, model: ModelShape) -> float:
        return model.forward_flops(self.sequences * self.length, self.tokens, self.length)


QWEN3_600M = ModelShape(1024, 3072, 28, 16, 8, 128, 151_936)
QWEN3_1700M = ModelShape(2048, 6144, 28, 16, 8, 128, 151_936)
SMOL_135M = ModelShape(576, 1536, 30, 9, 3, 64, 49_152)
TINY = ModelShape(64, 128, 2, 4, 2, 16, 4096)

SHAPES = {
    "tiny": Shape(TINY, TINY, 8, 2, 20, 20, 8, "cpu", "float32", (16,)),  # whether the benchmark itself works
    "main": Shape(QWEN3_600M, QWEN3_1700M, 64, 1, 128, 256, 0, "cuda", "bfloat16", (64, 32, 16, 8)),
    "lora": Shape(QWEN3_600M, QWEN3_1700M, 64, 1, 128, 256, 16, "cuda", "bfloat16", (64, 32, 16, 8)),
    "long": Shape(QWEN3_600M, QWEN3_1700M, 64, 1, 128, 1920, 0, "cuda", "bfloat16", (16, 8, 4)),
    "cpu": Shape(SMOL_135M, SMOL_135M, 16, 2, 40, 40, 8, "cpu", "float32", (32,)),
    "cpu-bf16": Shape(SMOL_135M, SMOL_135M, 16, 2, 40, 40, 8, "cpu", "bfloat16", (32,)),
}
