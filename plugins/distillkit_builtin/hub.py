"""The Hugging Face hub, as transformers asks it: what goes wrong there in our words, and once. Needs no torch."""

import logging
import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from distillkit.files.near_paths import did_you_mean

log = logging.getLogger("distillkit")
ASKING = "huggingface_hub.utils._http"
"""The logger that tells of every request that failed, and of every other try."""
LAST_TRY = re.compile(r"\[Retry (\d+)/\1\]")
WITHOUT_A_HUB = 'where no hub is reachable, see docs/your-data.md, "Without a model hub"'
WHAT_HELPS = (
    "HF_HUB_OFFLINE=1 takes what is in the cache and asks nothing, HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy"
)


class _ToldOnce(logging.Filter):
    """Says that the hub does not answer when that is first seen, and takes out all that the library says of it."""

    def __init__(self) -> None:
        """Nothing was seen."""
        super().__init__()
        self.told = False
        self.gave_up = False
        """Whether the last of some tries failed too: what comes after need not wait as long for nothing."""
        self._last_try = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Let pass what is not about a request that failed."""
        message = record.getMessage()
        if "Retrying in" in message or "before retry" in message:
            self._last_try = LAST_TRY.search(message) is not None
            return False
        if "thrown while requesting" not in message:
            return True
        self.gave_up = self.gave_up or self._last_try
        if not self.told:
            self.told = True
            reason = message.partition(" thrown while requesting")[0].strip("'")
            log.warning(
                "the Hugging Face hub does not answer (%s); it is asked a few more times. %s", reason, WHAT_HELPS
            )
        return False


@lru_cache(maxsize=1)
def _told_once() -> _ToldOnce:
    """The filter of this process, in its place."""
    import huggingface_hub.utils  # sets up the logger

    told = _ToldOnce()
    logging.getLogger(ASKING).addFilter(told)
    library = logging.getLogger(huggingface_hub.__name__)
    for handler in list(library.handlers):  # its messages go to the root's handlers too, and would be shown twice
        if logging.getLogger().handlers:
            library.removeHandler(handler)
    return told


def hub_options() -> dict[str, bool]:
    """What every loader of transformers is given: the cache alone, once the hub did not answer in this process."""
    return {"local_files_only": True} if _told_once().gave_up else {}


def hub_problem(name: str, error: BaseException) -> str | None:
    """Why the model or tokenizer `name` cannot be had from the hub, and what to do; None if it is something else."""
    from huggingface_hub import constants, errors, is_offline_mode

    found = tuple(_chain(error))
    near = did_you_mean(name)
    here = "" if "/" in name and not near else f"there is no directory {name!r} here{near and f' ({near[2:]})'}, and "
    cache = f"the cache ({constants.HF_HUB_CACHE}; HF_HOME says where it is)"
    if any(isinstance(each, errors.GatedRepoError) for each in found):
        return (
            f"it is gated: ask for access on {constants.ENDPOINT}/{name}, and set HF_TOKEN to a token of the account "
            "that has it"
        )
    if any(isinstance(each, errors.RepositoryNotFoundError) for each in found):
        return (
            f"{here}the Hugging Face hub has no model of that name, or it is private, and HF_TOKEN is to be set to a "
            f"token of an account that may read it{_similar(name)}"
        )
    if any(isinstance(each, errors.HFValidationError) for each in found):
        return (
            f"there is no directory of that name here, and models on the Hugging Face hub are called `org/name`{near}"
        )
    if not any(isinstance(each, errors.LocalEntryNotFoundError) for each in found):
        return _file_problem(name, found)
    if is_offline_mode():
        return (
            f"{here}it is not in {cache}, and HF_HUB_OFFLINE forbids to ask the hub: unset it, or name a local "
            f"directory{_similar(name)}; {WITHOUT_A_HUB}"
        )
    return (
        f"{here}the Hugging Face hub ({constants.ENDPOINT}) does not answer, and it is not in {cache}. Name a local "
        f"directory, or: HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy{_similar(name)}; {WITHOUT_A_HUB}"
    )


def _file_problem(name: str, found: tuple[BaseException, ...]) -> str | None:
    """Where the hub has what is asked for, and it lacks a file that a model has."""
    from huggingface_hub.errors import EntryNotFoundError

    missing = any(isinstance(each, EntryNotFoundError) for each in found)
    return no_model_on_hub(name) if missing or "does not appear to have" in str(found[0]) else None


def no_model_on_hub(name: str) -> str:
    """What is said of a name that the hub has, and that is no model for transformers."""
    kind = "it seems to hold GGUF files, a quantized format for inference" if "gguf" in name.lower() else "it is none"
    return (
        f"what the Hugging Face hub has under that name lacks the file of a model for transformers: {kind}. Name the "
        "model that it was made of, or serve it over HTTP"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _similar(name: str) -> str:
    """A model in the cache that may be meant."""
    from huggingface_hub import constants

    folders = Path(constants.HF_HUB_CACHE).glob("models--*")
    names = [folder.name.removeprefix("models--").replace("--", "/") for folder in folders]
    close = get_close_matches(name, [each for each in names if each != name], n=1, cutoff=0.8)
    return f". In the cache there is {close[0]!r}: is that meant?" if close else ""
