"""A run's weights on the Hugging Face hub: what goes there is found first; then exactly that is uploaded."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import JsonValue

from distillkit.errors import InputError
from distillkit.publishing.hub_card import CardFacts, hub_card, hub_name, is_hub_name
from distillkit.publishing.hub_files import ADAPTER_CONFIG, CARD, HubFile, hub_files, weight_files
from distillkit.publishing.machine_paths import MachinePaths, folders_of_run
from distillkit.run_directory.directory import MARKER, read_summary
from distillkit.run_directory.saved_run import exported_weights, paths_start_at, require_run

OF_THE_BASE = "base"
"""In the place of a licence: that of the base model."""
REPORT = "report.html"
NOT_WHAT_WAS_TRAINED = "is not what was trained"
"""What the card of an export says whose weights came back as others."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for."""

    run_dir: Path
    repo: str
    """`org/name`."""
    licence: str | None
    base: str | None
    """The base model's name on the hub; None: as the run has it."""
    private: bool
    revision: str | None
    report: bool


@dataclass(frozen=True, slots=True)
class Push:
    """What goes to the hub."""

    wish: Wish
    files: tuple[HubFile, ...]
    step: int

    @property
    def card(self) -> str:
        """The model card."""
        return next(bytes(file.content).decode() for file in self.files if file.name == CARD)


def prepare_push(wish: Wish, base_licence: Callable[[str], str | None]) -> Push:
    """What of a run goes to the hub. `base_licence` finds the licence of a model there.

    Raises InputError, with what to do, for a run that is not complete, an export that cannot be trusted, a licence or
    base model that is not known, and where a path of this machine would go along.
    """
    require_run(wish.run_dir)
    _require_repo_name(wish.repo)
    summary, exported = _complete(wish.run_dir)
    config: Mapping[str, JsonValue] = yaml.safe_load((wish.run_dir / MARKER).read_text(encoding="utf-8"))
    is_adapter = (exported / ADAPTER_CONFIG).is_file()
    base = _base_model(wish, config, exported, is_adapter=is_adapter)
    facts = CardFacts(wish.repo, base, _licence(wish, base, base_licence), is_adapter)
    paths = MachinePaths.of(folders_of_run(wish.run_dir, config))
    written = (exported / CARD).read_text(encoding="utf-8")
    card = paths.scrubbed(hub_card(written, facts, config, summary))
    files = [HubFile(CARD, card.encode()), *hub_files(exported, base, paths)]
    if wish.report:
        files.append(HubFile(REPORT, paths.scrubbed(_report(wish.run_dir)).encode()))
    for file in files:
        found = paths.found_in(file.content)
        if found is not None:
            raise InputError(f"{file.name} has the path {found} of this machine in it, which is not to be published")
    return Push(wish, tuple(files), int(str(summary["steps"])))


def upload(push: Push) -> str:
    """Make the repository if need be, and commit the files. The address of the commit. Raises InputError."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise InputError("there is no token of the hub: set HF_TOKEN to one that may write, or call `hf auth login`")
    api, wish = HfApi(), push.wish
    with _hub_words(wish.repo):
        api.create_repo(wish.repo, private=wish.private or None, exist_ok=True)
        if wish.private and not api.repo_info(wish.repo).private:
            raise InputError(f"{wish.repo} is there already, and public: make it private there, or leave out --private")
        if wish.revision is not None:
            api.create_branch(wish.repo, branch=wish.revision, exist_ok=True)
        commit = api.create_commit(
            wish.repo,
            [CommitOperationAdd(file.name, _given(file)) for file in push.files],
            commit_message=f"distillkit: weights after step {push.step}",
            revision=wish.revision,
        )
    return str(commit.commit_url)


def licence_on_hub(model: str) -> str | None:
    """The licence that the hub names for a model. Raises InputError where it does not answer."""
    from huggingface_hub import HfApi

    with _hub_words(model):
        found = HfApi().model_info(model).card_data
    return None if found is None or not found.license else str(found.license)


@contextmanager
def _hub_words(repo: str) -> Iterator[None]:
    """What the hub refuses, on one line."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled as error:
        raise InputError("HF_HUB_OFFLINE forbids to ask the hub: unset it for this command") from error
    except HfHubHTTPError as error:
        status = None if error.response is None else error.response.status_code
        may = "; the token may lack the right to write there" if status in (401, 403) else ""
        raise InputError(f"the hub refused {repo}: {str(error).splitlines()[0]}{may}") from error


def _given(file: HubFile) -> str | bytes:
    return file.content if isinstance(file.content, bytes) else str(file.content)


def _require_repo_name(repo: str) -> None:
    if not is_hub_name(repo) and not (repo.count("/") == 1 and Path(repo).is_dir()):
        raise InputError(f"{repo!r} is no name of a repository on the hub: write it as ORG/NAME")


def _complete(run_dir: Path) -> tuple[Mapping[str, JsonValue], Path]:
    """What a run came to that is complete, and its export. Raises InputError where there is no such thing."""
    summary = read_summary(run_dir)
    status = None if summary is None else summary.get("status")
    if summary is None or status != "completed":
        what = "has not ended" if status in (None, "running") else f"is {status}"
        raise InputError(f"{run_dir}: the run {what}, and only a completed one is published; go on with it by --resume")
    exported = exported_weights(run_dir)
    if exported is None:
        raise InputError(
            f"{run_dir}: what the run exported is not there any more; write it again: distillkit export {run_dir} --to "
            f"{run_dir}"
        )
    weight_files(exported.path)
    if not (exported.path / CARD).is_file():
        raise InputError(f"{exported.path} has no {CARD}: it was not written to its end, nor read back")
    if NOT_WHAT_WAS_TRAINED in (exported.path / CARD).read_text(encoding="utf-8"):
        raise InputError(f"{exported.path} came back as other weights than were trained, as its {CARD} says")
    return summary, exported.path


def _base_model(wish: Wish, config: Mapping[str, JsonValue], exported: Path, *, is_adapter: bool) -> str | None:
    """The base model's name on the hub. Raises InputError for an adapter whose base has none."""
    if wish.base is not None:
        return wish.base
    student = config.get("student")
    model = str(student.get("model", "")) if isinstance(student, dict) else ""
    folder = (paths_start_at(wish.run_dir) or Path()) / model
    merged = is_adapter and (wish.run_dir / "base").is_dir()
    known = folder / "PROVENANCE.json"
    if not merged and known.is_file():
        return str(json.loads(known.read_text(encoding="utf-8"))["model"])
    if not merged and not folder.is_dir() and (name := hub_name(model)) is not None:
        return name
    if is_adapter:
        raise InputError(
            f"{exported} is an adapter for a model in a directory of this machine, which nobody else finds: name it as "
            "the hub has it, by --base ORG/NAME"
        )
    return None


def _licence(wish: Wish, base: str | None, base_licence: Callable[[str], str | None]) -> str:
    of_base = f", or --license {OF_THE_BASE} for that of {base}" if base else ""
    if wish.licence is None:
        raise InputError(f"name the licence, as the hub writes it: --license apache-2.0{of_base}")
    if wish.licence != OF_THE_BASE:
        return wish.licence
    if base is None:
        raise InputError("--license base needs a base model that the hub knows: name it by --base ORG/NAME")
    found = base_licence(base)
    if found is None:
        raise InputError(f"the hub names no licence of {base}: look at it there, and name one by --license")
    return found


def _report(run_dir: Path) -> str:
    path = run_dir / REPORT
    if not path.is_file():
        raise InputError(f"{path} is not there: --report publishes the page that the run wrote")
    return path.read_text(encoding="utf-8")
