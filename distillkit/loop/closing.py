"""Reading a backend's outcomes, and stopping it where they are not read to their end."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Closing(Generic[T]):
    """Close a generator that is not read to its end, so that the backend stops what it was doing."""

    source: AsyncIterator[T]

    async def __aenter__(self) -> AsyncIterator[T]:
        """What is to be read."""
        return self.source

    async def __aexit__(self, *failure: object) -> None:
        """Whatever happened."""
        if isinstance(self.source, AsyncGenerator):
            await self.source.aclose()
