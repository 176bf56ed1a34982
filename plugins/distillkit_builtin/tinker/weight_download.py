"""Files of saved weights from a server: SkyRL's archive of a sampler's checkpoint, Tinker's signed addresses of files.

By requests of our own, with a limit: the SDK dropped its call for archives in 0.36, and never had one for signed files.
The key goes to the server itself alone, and to no address that it sends us on to.
"""

import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin, urlsplit

import httpx

from distillkit.errors import RunFailedError
from distillkit.files.strict_json import shortened
from distillkit_builtin.model_source import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from distillkit_builtin.remote.connection import explain, timeouts
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.remote.response import server_message

ARCHIVE = "/api/v1/training_runs/{run}/checkpoints/{name}/archive"
WANTED = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
REDIRECTS = 3


def fetch_archive(root: str, key: Key, path: str, folder: Path, seconds: float) -> None:
    """Write an adapter's two files, from the archive of the sampler checkpoint `tinker://RUN/.../NAME`; blocking.

    Raises RunFailedError if the server has no archive, or it does not hold them.
    """
    parts = path.removeprefix("tinker://").split("/")
    url = root + ARCHIVE.format(run=parts[0], name=parts[-1])
    packed = folder / "archive"
    _download(url, key, root, packed, seconds)
    try:
        _unpack(packed, folder, url)
    finally:
        packed.unlink(missing_ok=True)


def fetch_files(urls: Mapping[str, str], folder: Path, seconds: float) -> None:
    """Write files from signed addresses into `folder`, below which their names must stay; blocking.

    Raises RunFailedError.
    """
    for name, url in urls.items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise RunFailedError(f"the server names a file {shortened(name, 100)!r}, which lies elsewhere")
        (folder / place.parent).mkdir(parents=True, exist_ok=True)
        _download(url, None, "", folder / place, seconds)


def _unpack(packed: Path, folder: Path, url: str) -> None:
    """The two files alone, whatever else is in the archive, and wherever in it they are."""
    try:
        with tarfile.open(packed, "r:*") as archive:
            members = {PurePosixPath(member.name).name: member for member in archive if member.isfile()}
            for name in WANTED:
                source = archive.extractfile(members[name]) if name in members else None
                if source is None:
                    raise RunFailedError(f"{url}: the archive holds no {name}, only {', '.join(sorted(members))}")
                with source, (folder / name).open("wb") as file:
                    while block := source.read(2**20):
                        file.write(block)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise RunFailedError(f"{url}: the archive cannot be read: {error}") from error


def _download(url: str, key: Key | None, root: str, file: Path, seconds: float) -> None:
    """The body behind `url`, through redirects; `key` goes to addresses of `root` alone."""
    shown = _without_query(url)
    try:
        with httpx.Client(timeout=timeouts(seconds)) as client:
            for _ in range(REDIRECTS + 1):
                headers = {} if key is None or not _same_host(url, root) else {"X-API-Key": key.reveal()}
                with client.stream("GET", url, headers=headers) as response:
                    if response.has_redirect_location:
                        url = urljoin(url, response.headers["location"])
                        continue
                    if not response.is_success:
                        response.read()
                        said = server_message(response, key or Key.read(None))
                        raise RunFailedError(f"{shown}: HTTP {response.status_code}: {said}")
                    with file.open("wb") as out:
                        for block in response.iter_bytes():
                            out.write(block)
                    return
        raise RunFailedError(f"{shown}: redirects more than {REDIRECTS} times")
    except httpx.TimeoutException as error:
        raise RunFailedError(f"{shown}: no response within {seconds:g} s") from error
    except httpx.RequestError as error:
        raise RunFailedError(f"{shown}: {explain(error)}") from error


def _same_host(url: str, root: str) -> bool:
    ours, theirs = urlsplit(root), urlsplit(url)
    return (ours.scheme, ours.netloc.lower()) == (theirs.scheme, theirs.netloc.lower())


def _without_query(url: str) -> str:
    """A signed address without its signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
