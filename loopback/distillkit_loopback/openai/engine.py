"""From a request's body to a completion: what every dialect has in common."""

from collections import Counter
from threading import Lock

from distillkit.seeds import derive_seed
from distillkit_loopback.openai.bodies import Prompt
from distillkit_loopback.openai.catalogue import Catalogue
from distillkit_loopback.openai.completion import Completion, Task, compute
from distillkit_loopback.openai.errors import Refused
from distillkit_loopback.openai.faults import Distortion, Fault, Jitter, Order, OtherWeights
from distillkit_loopback.openai.gate import Gate
from distillkit_loopback.openai.models import Model
from distillkit_loopback.openai.scaled import Scaled


class Engine:
    """Computes for all dialects."""

    def __init__(self, catalogue: Catalogue, max_logprobs: int, *, processed: bool = False) -> None:
        """`max_logprobs` is how many top-k candidates may be requested for a token; `processed` as in `compute`."""
        self.catalogue = catalogue
        self.gate = Gate()
        self.max_logprobs = max_logprobs
        self._processed = processed
        self._lock = Lock()
        self._unseeded: Counter[tuple[int, ...]] = Counter()
        self._computed = 0
        self._last: tuple[int, ...] = ()
        self._before: tuple[int, ...] = ()
        """The last prompt that was another one than `_last`."""

    def ids(self, model: Model, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's ids. Raises Refused for an empty one, and for ids that the model does not have."""
        ids = tuple(model.tokenizer.encode(prompt)) if isinstance(prompt, str) else prompt
        if not ids:
            raise Refused(400, "The decoder prompt cannot be empty", param="prompt")
        for index in ids:
            if not 0 <= index < model.vocabulary:
                raise Refused(400, f"Token id {index} is out of vocabulary", param="prompt")
        return ids

    def seed(self, given: int | None, prompt: tuple[int, ...]) -> int:
        """The request's own, or one that depends on how often this prompt came without a seed.

        Real servers sample at random then; here a run is the same every time, whatever the order of its requests.
        """
        if given is not None:
            return abs(given)
        with self._lock:
            self._unseeded[prompt] += 1
            return derive_seed("loopback", self._unseeded[prompt], *prompt)

    def compute(self, model: Model, task: Task, fault: Fault | None) -> Completion:
        """The completion, with what is wrong with it by `fault`."""
        number, before = self._arrived(task.prompt)
        if isinstance(fault, OtherWeights):
            model = Scaled(model, fault.scale)
        completion = compute(model, task, processed=self._processed)
        match fault:
            case Jitter(nats):
                return completion.noisy(nats, derive_seed("jitter", number))
            case Order(nats) if before:
                return completion.noisy(nats, derive_seed("order", *before))
        if isinstance(fault, Distortion):
            return completion.distorted(fault, model.vocabulary)
        return completion

    def _arrived(self, prompt: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """The request's number, and the last other prompt before it."""
        with self._lock:
            self._computed += 1
            if prompt != self._last:
                self._last, self._before = prompt, self._last
            return self._computed, self._before
