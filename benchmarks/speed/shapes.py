"""What is measured: sizes of student, teacher and batch. Weights are random, so a completion runs to its end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """A decoder like Qwen3 (https://arxiv.org/abs/2505.09388)."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = True
    """The embeddings are the head."""

    @property
    def parameters(self) -> int:
        """All weights but the norms'."""
        return self.layer_parameters + (1 if self.tied else 2) * self.hidden * self.vocabulary

    @property
    def cache_bytes(self) -> int:
        """Of keys and values of a token, in 16 bits."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim

    def adapter_parameters(self, rank: int) -> int:
        """Weights of a LoRA on the seven linear layers of a decoder layer."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sides = 2 * (self.hidden + query) + 2 * (self.hidden + key) + 3 * (self.hidden + self.ffn)
        return self.layers * rank * sides

    @property
    def layer_parameters(self) -> int:
        """Weights that a token is multiplied by in all layers."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.ffn)

    def weight_flops(self, tokens: int, scored: int) -> float:
        """One product of each token with every weight, of `scored` ones with the head too."""
        return 2 * tokens * self.layer_parameters + 2 * scored * self.hidden * self.vocabulary

    def attention_flops(self, pairs: float) -> float:
        """Forward, of so many pairs of a token and one that it attends to."""
        return self.layers * 4 * self.heads * self.head_dim * pairs


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
    own_base: bool = False
    """The teacher is the model that the student starts from, read from the same files."""
    steps: tuple[int, int] = (8, 4)
    """Ours and TRL's, where nothing else is asked for; the first of each is not counted."""

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.prompt_tokens + self.new_tokens

    @property
    def scoring_flops(self) -> float:
        """One forward of the teacher, which reads the prompt of several completions once where that saves enough."""
        return self._forward(self.teacher, shared=self._scores_prompts_once)

    @property
    def training_flops(self) -> float:
        """What a step computes: forward, the gradient of what each layer reads and, of trained weights, of the weights.

        A weight takes 6 operations a token where it is trained and 4 where it is frozen; a LoRA's own weights take 6.
        """
        if self.lora_rank == 0:
            return self.training_flops_of_all_weights
        tokens, pairs = self._computed(shared=self._trains_prompts_once)
        frozen = 2 * self.student.weight_flops(tokens, self.tokens)
        adapter = 6 * tokens * self.student.adapter_parameters(self.lora_rank)
        return frozen + 3 * self.student.attention_flops(pairs) + adapter

    @property
    def training_flops_of_all_weights(self) -> float:
        """Forward, and twice as much backward: as if no weight were frozen, which is how a LoRA is often counted."""
        return 3 * self._forward(self.student, shared=self._trains_prompts_once)

    @property
    def _scores_prompts_once(self) -> bool:
        """As `prefill_scoring.saves_enough` has it."""
        saved = 1 - self._computed(shared=True)[0] / self._computed(shared=False)[0]
        return saved >= (0.35 if self.device == "cuda" else 0.1)

    @property
    def _trains_prompts_once(self) -> bool:
        return self.device == "cpu"

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

    def _computed(self, *, shared: bool) -> tuple[int, float]:
        """Tokens, and pairs of attention; `shared`: prompts are computed once, and their completions behind them."""
        prompts = self.prompts if shared else self.sequences
        pairs = prompts * self.prompt_tokens**2 / 2 + self.tokens * (self.prompt_tokens + self.new_tokens / 2)
        return prompts * self.prompt_tokens + self.tokens, pairs

    def _forward(self, model: ModelShape, *, shared: bool) -> float:
        tokens, pairs = self._computed(shared=shared)
        return model.weight_flops(tokens, self.tokens) + model.attention_flops(pairs)


QWEN3_600M = ModelShape(1024, 3072, 28, 16, 8, 128, 151_936)
QWEN3_1700M = ModelShape(2048, 6144, 28, 16, 8, 128, 151_936)
QWEN3_8B = ModelShape(4096, 12_288, 36, 32, 8, 128, 151_936, tied=False)
SMOL_135M = ModelShape(576, 1536, 30, 9, 3, 64, 49_152)
TINY = ModelShape(64, 128, 2, 4, 2, 32, 4096)

SHAPES = {
    "tiny": Shape(TINY, TINY, 8, 2, 20, 20, 8, "cpu", "float32", (16,)),  # whether the benchmark itself works
    "main": Shape(QWEN3_600M, QWEN3_1700M, 64, 1, 128, 256, 0, "cuda", "bfloat16", (64, 32, 16, 8)),
    "lora": Shape(QWEN3_600M, QWEN3_1700M, 64, 1, 128, 256, 16, "cuda", "bfloat16", (64, 32, 16, 8)),
    "wide": Shape(QWEN3_600M, QWEN3_1700M, 64, 8, 128, 256, 16, "cuda", "bfloat16", (128, 64, 32, 16), steps=(5, 3)),
    "8b": Shape(
        QWEN3_8B, QWEN3_8B, 64, 1, 256, 512, 16, "cuda", "bfloat16", (16, 8, 4, 2), own_base=True, steps=(4, 3)
    ),
    "long": Shape(QWEN3_600M, QWEN3_1700M, 64, 1, 128, 1920, 0, "cuda", "bfloat16", (16, 8, 4, 2), steps=(4, 3)),
    "cpu": Shape(SMOL_135M, SMOL_135M, 16, 2, 40, 40, 8, "cpu", "float32", (32,), steps=(4, 4)),
    "cpu-bf16": Shape(SMOL_135M, SMOL_135M, 16, 2, 40, 40, 8, "cpu", "bfloat16", (32,), steps=(4, 4)),
}
