"""What can be wrong with student `tinker` before anything is made, by what the server says of itself."""

from collections.abc import Iterator

from distillkit.errors import InputError
from distillkit_builtin.tinker.options import TinkerStudentOptions
from distillkit_builtin.tinker.server_facts import ServerFacts

LAYERS = ("train_mlp", "train_attn", "train_unembed")
CHOSEN = "the LoRA would be where the server puts it; leave it true"
UNREAD: tuple[tuple[str, str, str, str], ...] = (
    ("grad_clip_norm", "AdamParams", "grad_clip_norm", "gradients would not be clipped; set it to 0"),
    ("checkpoint_ttl", "SaveWeightsRequest", "ttl_seconds", "checkpoints would stay for ever; set it to null"),
    *((name, "LoRAConfig", name, CHOSEN) for name in LAYERS),
)
"""Options, the kind of request and the field that carry them, and what follows where a server does not read that."""


def require_options(options: TinkerStudentOptions, facts: ServerFacts) -> None:
    """Raise InputError, with all that is wrong, if the server has no such model or drops an option without a word."""
    facts.require_model(options.model, "student.model", trained=True)
    problems = [f"student.{problem}" for problem in (*_own_problems(options), *_unread(options, facts))]
    length = facts.lengths[options.model]
    if length is not None and options.max_seq_len is not None and options.max_seq_len > length:
        problems.append(f"student.max_seq_len is {options.max_seq_len}; the server takes {length} tokens")
    if problems:
        raise InputError("\n".join(problems))


def unverified_notes(options: TinkerStudentOptions, facts: ServerFacts) -> Iterator[str]:
    """What is left to the server, or asked for and cannot be verified here, for `distillkit check` to say."""
    unread = [name for name in LAYERS if facts.ignores("LoRAConfig", name)]
    if unread:
        yield f"student: which layers have the LoRA is the server's choice: it does not read {', '.join(unread)}"
    if facts.schemas is not None:
        return
    if options.grad_clip_norm:
        yield "student: whether the server clips gradients (grad_clip_norm) is not known, since it does not say"
    if options.checkpoint_ttl is not None:
        yield "student: whether the server deletes checkpoints (checkpoint_ttl) is not known, since it does not say"


def _own_problems(options: TinkerStudentOptions) -> Iterator[str]:
    if not (options.train_mlp or options.train_attn or options.train_unembed):
        yield "train_mlp, train_attn and train_unembed are all false: nothing would be trained"


def _unread(options: TinkerStudentOptions, facts: ServerFacts) -> Iterator[str]:
    for option, kind, name, outcome in UNREAD:
        value = getattr(options, option)
        if value != type(options).model_fields[option].default and facts.ignores(kind, name):
            yield f"{option} is {value}, and {facts.root} says that it reads no {name} ({kind}): {outcome}"
