"""Something at Fireworks that can be asked for completions."""

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Endpoint:
    """A deployment or model that can be asked, with the window of requests that it is asked at once."""

    sampler: Any
    controller: Any

    async def close(self) -> None:
        """On the event loop that used it: the SDK's own `close` only schedules this."""
        client = self.sampler._async_client
        if client is not None:
            await client.aclose()
        self.sampler.close()
