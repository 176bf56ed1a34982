"""The run's connection to its trainer: the SDK's clients, between provisioning and close."""

import contextlib
import traceback
from dataclasses import dataclass, field
from typing import Any

from distillkit_builtin.fireworks.client_loop import ClientLoop
from distillkit_builtin.fireworks.options import FireworksStudentOptions


@dataclass(slots=True)
class TrainerConnection:
    """One trainer job and the deployment that its weights are loaded into. There before they are ready."""

    trainer_job: str
    deployment: str
    fresh_deployment: bool = False
    """Whether this run made the deployment, so that it still serves the base model."""
    sdk_service: Any = None
    """The SDK's `FiretitanServiceClient`; None until it is made, and after `close`."""
    client: Any = None
    """The SDK's training client; None until the trainer is ready, and after `close`."""
    deployment_shape: str | None = None
    accelerator: tuple[str | None, int | None] = (None, None)
    """Kind and number of what the trainer runs on, as far as the service says."""
    loop: ClientLoop = field(default_factory=ClientLoop, repr=False)

    def connect(self, sdk_service: Any, options: FireworksStudentOptions) -> None:  # noqa: ANN401 - the SDK's client
        """Wait for trainer and deployment, and make a training client; blocking. What fails is closed."""
        self.sdk_service = sdk_service
        try:
            with self.loop.chosen():
                self.client = self.new_client(options)
        except BaseException as error:
            self._close_service()
            # Clients of what is half made are known to the SDK's frames alone, which live as long as their traceback.
            traceback.clear_frames(error.__traceback__)
            raise
        self.deployment_shape = sdk_service.deployment_shape
        self.accelerator = (sdk_service.accelerator_type, sdk_service.accelerator_count)

    def new_client(self, options: FireworksStudentOptions) -> Any:  # noqa: ANN401 - the SDK's training client
        """A client of a new model, for a LoRA; for all weights a trainer has one model, and this is it. Blocking."""
        return self.sdk_service.create_training_client(
            options.model, lora_rank=options.lora_rank, lora_alpha=options.lora_alpha
        )

    def close(self) -> None:
        """End the session with its heartbeats, requests, connections and threads; blocking.

        Nothing at the service is deleted. Whoever still waits for a result gets an error.
        """
        self.loop.cancel()  # first: a request that hangs holds a lock of the SDK's, which closing waits for
        try:
            self._close_service()
        finally:
            self.loop.close()

    def _close_service(self) -> None:
        """Close what the SDK closes, and what it leaves to the garbage collector: transports and managers."""
        service, self.sdk_service, self.client = self.sdk_service, None, None
        if service is None:
            return
        handle = service._managed_handle
        with contextlib.ExitStack() as stack:
            if handle is not None:
                stack.callback(handle.trainer_manager.close)
                stack.callback(handle.deployment_manager.close)
            stack.callback(service.close)
            holder = None if handle is None else getattr(handle.service_client, "holder", None)
            if holder is not None:
                stack.callback(self.loop.run, _close_transports(holder))


async def _close_transports(holder: Any) -> None:  # noqa: ANN401 - the SDK's InternalClientHolder
    """Close the connections below the SDK's HTTP clients: an adapter in between does not pass their closing on."""
    pools = [*holder._client_pools.values(), *holder._auxiliary_pools]
    for client in [client for pool in pools for client in (*pool._clients, *pool._retired_clients)]:
        transport = getattr(client._client._transport, "_transport", None)  # none below httpx's own
        if transport is not None:
            await transport.aclose()
