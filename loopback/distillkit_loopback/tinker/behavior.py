"""What two servers of one protocol do differently, each difference by name.

`HOSTED` is the service that Thinking Machines runs, as its SDK and documentation have it; `SKYRL` is SkyRL 0.4.0's
server with its JAX backend, as it was seen to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Behavior:
    """How the service answers where servers differ."""

    needs_key: bool
    """No request without an API key is let in."""
    knows_models: bool
    """A model of another name than the service's is refused; else it is trained, and is the service's all the same."""
    sums_losses: bool
    """Else each sequence's loss is divided by the sum of its weights, and a step's gradient by its sequences."""
    clips_gradients: bool
    """Else `grad_clip_norm` is ignored."""
    scores_first: bool
    """N prompt logprobs for N tokens, the first one NaN; else N - 1."""
    scores_choices: bool
    """`prompt_logprobs_last_n`, top-k and target logprobs; else top-k fails, and the others are ignored."""
    stops_at_eos: bool
    """Where a request names no stop; else only what is named ends a completion."""
    keeps_options: bool
    """`ttl_seconds` and `overwrite` of checkpoints; else both are ignored."""
    loads_new_models: bool
    """`load_weights` without a model makes one; else it is 422."""
    samples_ended_runs: bool
    """Weights of a run whose session has ended can be sampled; else the request fails."""
    finishes_sessions: bool
    """Sessions can be finished; else a session ends when its heartbeats do."""
    exports: bool
    """`save_weights_external`, files by signed addresses; else the archive of sampler weights."""
    knows_repeats: bool
    """A request that comes twice is done once; else a new model, save or sample is another one each time."""
    describes_itself: bool
    """/openapi.json, in which stands what it reads of each request."""
    fails_by_status: bool
    """A failed operation's result is HTTP 400; else 200 with `error` and `category`."""
    loss_options: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The keys of `loss_fn_config` by loss."""


NO_OPTIONS = {"cross_entropy": frozenset[str](), "importance_sampling": frozenset[str]()}

HOSTED = Behavior(
    needs_key=True,
    knows_models=True,
    sums_losses=True,
    clips_gradients=True,
    scores_first=True,
    scores_choices=True,
    stops_at_eos=True,
    keeps_options=True,
    loads_new_models=True,
    samples_ended_runs=True,
    finishes_sessions=True,
    exports=True,
    knows_repeats=True,
    describes_itself=False,
    fails_by_status=False,
    loss_options=NO_OPTIONS,
)
SKYRL = Behavior(
    needs_key=False,
    knows_models=False,
    sums_losses=False,
    clips_gradients=False,
    scores_first=False,
    scores_choices=False,
    stops_at_eos=False,
    keeps_options=False,
    loads_new_models=False,
    samples_ended_runs=False,
    finishes_sessions=False,
    exports=False,
    knows_repeats=False,
    describes_itself=True,
    fails_by_status=True,
    loss_options=NO_OPTIONS,
)
KINDS: Mapping[str, Behavior] = {"hosted": HOSTED, "skyrl": SKYRL}
