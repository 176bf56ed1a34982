"""Seeds that depend on what is sampled, not on when: order and concurrency do not change the data."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A number below 2^63 from the run's seed and whatever identifies a completion."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
