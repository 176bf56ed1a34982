"""Secrets that can be told from everything else, and the places where one of them shows, also in part or encoded."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

PROXY_USER = "proxy-user"
SECRETS: Mapping[str, str] = {
    "HF_TOKEN": "hf_Q7zN/vXw2+KdRm5TjYb8Lp",
    "FIREWORKS_API_KEY": "fw_G3hC/sBt6+UeWn9XkZa1Mq",
    "TINKER_API_KEY": "tml-J4xQ/uPe8+NbVs3KdHw7Rc",
    "WANDB_API_KEY": "0d4f6c8e2a1b3957/dE+f0e2c4a6b8d1f3957a1c3e5b7",
    "OPENAI_API_KEY": "sk-P8rV/yDf4+HgJs2LmNc7Bt",
    "TEACHER_LOGIN": "tl-E5kM/wZq9+RxTv3CbFn6Hj",
    "proxy password": "pp-S6dJ/gAl1+OiUy7QwEr4Zx",
}
"""By where they are: environment variables, one of them with a name that says nothing, and a password in a URL."""
SHOWS = 8
"""So many characters of a secret in a row are a leak: what is cut off at some length is still most of a key."""


def environment(proxy: str) -> dict[str, str]:
    """The environment variables that hold them; `proxy` is `host:port`."""
    held = {name: value for name, value in SECRETS.items() if name.isupper()}
    url = f"http://{PROXY_USER}:{quote(SECRETS['proxy password'], safe='')}@{proxy}"
    return held | {"HTTP_PROXY": url, "HTTPS_PROXY": url, "http_proxy": url, "https_proxy": url}


def forms_of(secret: str) -> Iterator[str]:
    """The secret as it is, in a URL, and in base64 behind any number of other characters (`user:password`)."""
    yield secret
    yield quote(secret, safe="")
    for before in range(3):
        coded = base64.b64encode(b"x" * before + secret.encode())
        yield coded[4 if before else 0 : -4].decode()  # without what the characters around it change


def pieces_of(secret: str) -> set[bytes]:
    """Everything whose appearance is a leak, in lower case."""
    return {
        form[start : start + SHOWS].lower().encode()
        for form in forms_of(secret)
        for start in range(len(form) - SHOWS + 1)
    }


def shown_in(content: bytes) -> list[str]:
    """The names of the secrets that can be read in `content`, each with what stands around it."""
    found, lowered = [], content.lower()
    for name, secret in SECRETS.items():
        at = next((at for at in map(lowered.find, sorted(pieces_of(secret))) if at >= 0), None)
        if at is not None:
            found.append(f"{name}: ...{content[max(0, at - 80) : at + 60]!r}...")
    return found


def leaks_below(folder: Path) -> list[str]:
    """The files below `folder` that show a secret, hidden ones too, or have one in their name."""
    found = []
    for path in sorted(folder.rglob("*")):
        shown = shown_in(str(path.relative_to(folder)).encode())
        shown += shown_in(path.read_bytes()) if path.is_file() else []
        found += [f"{path.relative_to(folder)}: {one}" for one in shown]
    return found
