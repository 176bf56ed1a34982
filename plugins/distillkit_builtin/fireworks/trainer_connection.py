"""The run's connection to its trainer: the SDK's clients, between provisioning and close."""

import contextlib
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
    """It was made just now, so it serves the base model."""
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
        except BaseException:
            self._close_service()
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
        service, self.sdk_service, self.client = self.sdk_service, None, None
        if service is None:
            return
        handle = service._managed_handle
        with contextlib.ExitStack() as stack:
            for manager in () if handle is None else (handle.trainer_manager, handle.deployment_manager):
                stack.callback(manager.close)  # which the SDK leaves to the garbage collector
            stack.callback(service.close)
