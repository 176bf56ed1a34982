"""What the names of the Fireworks service look like: models, deployments, training shapes, and the ids we choose."""

import hashlib
import re
import secrets

MAX_ID = 63
"""Characters that an id may have; the SDK checks none of them before it requests something that costs money."""
TEACHER_PREFIX = "distillation-teacher-"
RESOURCE_ID = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label, as trainers and checkpoints are called."""
BASE_MODEL = re.compile(r"accounts/[^/\s]+/models/[^/\s]+")
TRAINING_SHAPE = re.compile(r"accounts/[^/\s]+/trainingShapes/[^/\s]+(/versions/[^/\s]+)?")
DEPLOYMENT_SHAPE = re.compile(r"accounts/[^/\s]+/deploymentShapes/[^/\s]+(/versions/[^/\s]+)?")
READY_MADE = ("/deployments/", "/deployedModels/")


def is_base_model(model: str) -> bool:
    """Whether `model` needs a deployment of its own; anything else is asked as it stands."""
    return "/models/" in model and not any(part in model for part in READY_MADE)


def model_problem(model: str) -> str | None:
    """What is wrong with the name of a model or deployment, or None."""
    if re.search(r"\s", model) or any(not part for part in model.split("/")):
        return f"model {model!r} is no resource name: it has white space or an empty part"
    if is_base_model(model):
        return None if BASE_MODEL.fullmatch(model) else f"model {model!r}: {_wanted_model()}"
    if model.startswith("accounts/") and not any(part in model for part in READY_MADE):
        return f"model {model!r}: {_wanted_model()}"
    return None


def base_model_problem(model: str) -> str | None:
    """What is wrong with the name of a model to train, or None."""
    return None if BASE_MODEL.fullmatch(model) else f"model {model!r}: a model to train is accounts/NAME/models/NAME"


def _wanted_model() -> str:
    return (
        "wants accounts/NAME/models/NAME (a deployment is made for it), or what is served already: "
        "accounts/NAME/deployments/NAME or accounts/NAME/deployedModels/NAME"
    )


def id_problem(what: str, identifier: str) -> str | None:
    """What is wrong with an id that a user chose, or None."""
    if len(identifier) > MAX_ID:
        return f"{what} {identifier!r} has {len(identifier)} characters; the service takes {MAX_ID}"
    if not RESOURCE_ID.fullmatch(identifier):
        return f"{what} {identifier!r}: only a-z, 0-9 and -, starting with a letter and not ending in -"
    return None


def checkpoint_problem(reference: str, trainer: str | None) -> str | None:
    """What is wrong with a checkpoint that a student is to start from, or None.

    JOB:NAME, or NAME of the trainer that is reused. The service loads nothing else, and says so only when the trainer
    runs.

    Args:
        reference: `init_from_checkpoint`.
        trainer: `trainer.job_id`; None: a new one is made.
    """
    job, colon, name = reference.rpartition(":")
    said = f"init_from_checkpoint {reference!r}"
    if not LABEL.fullmatch(name) or (colon and not LABEL.fullmatch(job)):
        return (
            f"{said}: wants JOB:NAME, no path and no address; each at most {MAX_ID} of a-z, 0-9 and -, and no - at "
            "either end"
        )
    if not colon and trainer is None:
        return f"{said} is of no trainer: wants JOB:NAME, or trainer.job_id set; a new trainer has no checkpoints"
    return None


def teacher_deployment_id(model: str, *, hashed: bool) -> str:
    """`distillation-teacher-<slug>`: the same for every run, so that a later one finds what an earlier one made.

    With `hashed` (several base models in one run), or where the name had to be cut, a hash of the model is added.
    """
    slug = _slug(model.rpartition("/")[2])
    space = MAX_ID - len(TEACHER_PREFIX)
    if not hashed and slug and len(slug) <= space:
        return TEACHER_PREFIX + slug
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    return TEACHER_PREFIX + "-".join(part for part in (slug[: space - 9].strip("-"), digest) if part)


def new_run_id(run_name: str, purpose: str) -> str:
    """An id that no other run has, such as `dk-routed-demo-trainer-1f2e3d4c`."""
    slug = _slug(run_name)[: MAX_ID - len(f"dk--{purpose}-") - 8].strip("-")
    return "-".join(part for part in ("dk", slug, purpose, secrets.token_hex(4)) if part)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
