"""The recipe's dataset: a file, or an address that is fetched once into the log path."""

import hashlib
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from distillkit.errors import InputError
from distillkit.files.atomic import replacing

SECONDS = 30.0
ATTEMPTS = 3
PAUSE_SECONDS = 1.0
MOST_BYTES = 2**30


def local_dataset(dataset: str | Path, log_path: Path) -> Path:
    """The file to read. One that was fetched stays, so that a resumed run sees the same rows.

    Raises:
        InputError: if an address cannot be fetched.
    """
    address = str(dataset)
    if urlsplit(address).scheme not in ("http", "https"):
        return Path(dataset)
    path = log_path / f"dataset-{hashlib.sha256(address.encode()).hexdigest()[:10]}.jsonl"
    if not path.is_file():
        content = _fetch(address)
        log_path.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside:
            aside.write_bytes(content)
    return path


def _fetch(address: str) -> bytes:
    reason = "it was not requested"
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_SECONDS * attempt)
        try:
            with urlopen(address, timeout=SECONDS) as response:  # noqa: S310 - http and https alone come here
                content: bytes = response.read(MOST_BYTES + 1)
        except HTTPError as error:
            reason = f"the server responds {error.code} {error.reason}"
            if error.code < 500:
                break
        except (URLError, OSError) as error:
            reason = str(getattr(error, "reason", error))
        else:
            if len(content) <= MOST_BYTES:
                return content
            reason = "it has more than 1 GiB"
            break
    raise InputError(f"dataset: {address} cannot be fetched: {reason}; give the path of a JSONL file instead")
