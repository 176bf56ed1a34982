"""The charts of a report, in groups. Names and meanings of metrics are those of `docs/metrics.md`."""

from distillkit.report.chart_spec import ChartSpec

GROUPS: dict[str, tuple[ChartSpec, ...]] = {
    "Learning": (
        ChartSpec(
            "gap",
            "Reverse KL",
            "nats a token",
            "How far the student is from its teachers, on what it writes itself. It should fall; near 0 nothing is "
            "left to learn.",
            ("train/reverse_kl", "teacher_route/(.+)/reverse_kl"),
        ),
        ChartSpec(
            "heldout-gap",
            "Reverse KL, held-out rows",
            "nats a token",
            "The same on rows that are not trained on.",
            ("eval/reverse_kl", "eval_route/(.+)/reverse_kl"),
        ),
        ChartSpec(
            "headroom",
            "Headroom",
            "share of the first gap",
            "What is left of the gap that each route began with.",
            ("teacher_route/(.+)/headroom",),
            kind="share",
        ),
        ChartSpec("loss", "Loss", "", "A surrogate: its gradient matters, its value need not fall.", ("train/loss",)),
        ChartSpec(
            "grad-norm", "Gradient norm", "", "Before clipping.", ("train/grad_norm", "teacher_route/(.+)/grad_norm")
        ),
        ChartSpec("learning-rate", "Learning rate", "", "As the schedule has it.", ("train/learning_rate",)),
    ),
    "Completions": (
        ChartSpec(
            "length",
            "Length",
            "tokens",
            "The mean. A length that runs to the limit, or to nothing, is a student that has learnt to (not) end.",
            ("completions/mean_length",),
        ),
        ChartSpec(
            "truncated",
            "Cut at the length limit",
            "share of completions",
            "Completions that did not end by themselves. It should be low, or fall.",
            ("completions/truncated_fraction", "teacher_route/(.+)/truncated_fraction"),
            kind="share",
        ),
        ChartSpec(
            "repetition",
            "Repetition",
            "share of 4-grams",
            "How much of a completion stood in it before.",
            ("completions/repetition",),
            kind="share",
        ),
        ChartSpec(
            "failed",
            "Completions lost",
            "completions a step",
            "Not sampled, not scored or refused; the ledger says why.",
            ("completions/failed", "teacher_route/(.+)/failed"),
            kind="count",
        ),
    ),
    "Policy": (
        ChartSpec(
            "entropy",
            "Entropy of the policy, estimated",
            "nats a token",
            "The student's negative log-likelihood of what it sampled. A fall to almost nothing is a collapse.",
            ("train/sampling_nll",),
            label="student",
        ),
        ChartSpec(
            "teacher-nll",
            "Negative log-likelihood under the teachers",
            "nats a token",
            "Of the same tokens; less the student's own it is the reverse KL.",
            ("train/teacher_nll",),
            label="teachers",
        ),
        ChartSpec(
            "advantage",
            "Advantage",
            "nats",
            "Its mean and the mean of its size, which is the strength of the signal.",
            ("train/((?:abs_)?advantage)",),
        ),
        ChartSpec(
            "mismatch",
            "Mismatch of sampler and trainer",
            "nats a token",
            "How far the sampler's logprobs are from the trainer's, for the same tokens. It should be rounding.",
            ("rollout/(logprob_mismatch(?:_max)?)",),
        ),
        ChartSpec(
            "unknown-mass",
            "Mass of ids that not all sides know",
            "probability",
            "Of losses that read whole distributions.",
            ("train/(unknown_mass|teacher_unknown_mass)",),
            kind="share",
        ),
    ),
    "Balance of the routes": (
        ChartSpec(
            "weight",
            "Weight",
            "share of the step's weight",
            "How much each route counts. One near 100% drowns the others.",
            ("teacher_route/(.+)/weight",),
            kind="share",
        ),
        ChartSpec("tokens", "Tokens", "a step", "Active ones.", ("teacher_route/(.+)/tokens",), kind="count"),
        ChartSpec(
            "scored", "Completions scored", "a step", "By each teacher.", ("teacher_route/(.+)/scored",), kind="count"
        ),
        ChartSpec(
            "cosine",
            "Cosine between gradients",
            "",
            "Below 0 two routes pull the weights apart.",
            ("route_cosine/(.+)",),
        ),
        ChartSpec(
            "weightings",
            "What weightings leave",
            "share of the weight",
            "Of the step's summed weights; above 100% tokens were made heavier.",
            ("weights/(.+)",),
            kind="share",
        ),
        ChartSpec(
            "topk-mass",
            "Mass of the teacher's top-K",
            "probability",
            "What the K tokens have together.",
            ("teacher_route/(.+)/topk_mass",),
            kind="share",
        ),
        ChartSpec(
            "topk-overlap",
            "Overlap of both sides' top-K",
            "share of K",
            "What student and teacher have in common.",
            ("teacher_route/(.+)/topk_overlap",),
            kind="share",
        ),
    ),
    "Speed": (
        ChartSpec(
            "throughput",
            "Throughput",
            "trained tokens a second",
            "Active tokens of a step by its seconds, sampling and scoring counted in.",
            ("throughput",),
        ),
        ChartSpec(
            "phases",
            "Time by phase",
            "seconds",
            "Of each step. Sampling and scoring overlap where teachers are on servers.",
            ("time/(sample|score|train|sync|step|eval|forward_backward|optim_step)",),
        ),
        ChartSpec(
            "inflight",
            "Score requests at once",
            "requests",
            "Unanswered at once, at most.",
            ("teacher_route/(.+)/inflight",),
            kind="count",
        ),
        ChartSpec("concurrency", "Requests at once", "requests", "Of remote backends.", ("concurrency/(.+)",)),
        ChartSpec(
            "cache", "Cache of scores", "scores a step", "Hits, misses and failures.", ("cache/(.+)",), kind="count"
        ),
    ),
}
"""Heading to its charts."""
