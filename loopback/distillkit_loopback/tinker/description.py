"""What SkyRL publishes of itself at /openapi.json, in which a client can see which fields it reads."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

READ: Mapping[str, Sequence[str]] = {
    "AdamParams": ("learning_rate", "beta1", "beta2", "eps", "weight_decay"),
    "CreateModelRequest": ("session_id", "base_model", "lora_config", "model_role"),
    "LoRAConfig": ("rank", "seed"),
    "LoadWeightsRequest": ("model_id", "path", "optimizer", "seq_id", "type"),
    "OptimStepRequest": ("model_id", "adam_params", "seq_id"),
    "SampleRequest": (
        *("num_samples", "prompt", "sampling_params", "base_model", "model_path", "sampling_session_id", "seq_id"),
        *("prompt_logprobs", "topk_prompt_logprobs", "type"),
    ),
    "SamplingParams": ("max_tokens", "seed", "stop", "temperature", "top_k", "top_p"),
    "SaveWeightsForSamplerRequest": ("model_id", "path", "sampling_session_seq_id", "seq_id", "type"),
    "SaveWeightsRequest": ("model_id", "path", "type"),
}
"""Source: `skyrl/tinker/api.py` of SkyRL 0.4.0."""
RUN = "/api/v1/training_runs/{unique_id}/checkpoints"
PATHS = (
    *(f"/api/v1/{name}" for name in ("healthz", "get_server_capabilities", "client/config", "telemetry")),
    *(f"/api/v1/{name}" for name in ("create_session", "session_heartbeat", "create_sampling_session", "asample")),
    *(f"/api/v1/{name}" for name in ("create_model", "unload_model", "get_info", "forward_backward", "optim_step")),
    *(f"/api/v1/{name}" for name in ("load_weights", "save_weights", "save_weights_for_sampler", "retrieve_future")),
    *("/api/v1/samplers/{sampler_id}", "/api/v1/training_runs", "/api/v1/training_runs/{model_id}"),
    *(RUN, f"{RUN}/{{checkpoint_id}}/archive", f"{RUN}/{{checkpoint_id}}/download", f"{RUN}/{{checkpoint_path}}"),
    "/api/v1/weights_info",
)


def description() -> JsonValue:
    """As much of it as names endpoints and fields."""
    schemas: dict[str, JsonValue] = {
        name: {"type": "object", "properties": {field: {} for field in fields}} for name, fields in READ.items()
    }
    paths: dict[str, JsonValue] = {path: {} for path in PATHS}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tinker API Mock"},
        "paths": paths,
        "components": {"schemas": schemas},
    }
