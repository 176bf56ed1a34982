"""Whether a run fits into memory: what all plugins will hold on a device, against what is there."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import NoneType

from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.memory import SHARED_PARTS, DeviceMemory, MemoryPart, MemoryReport, MemoryUse, gib
from distillkit.roles.plugin import CheckReport, Plugin
from distillkit.roles.returned import returned
from distillkit.run_plan import Plan

LIKELY = 0.95
"""The share of the free memory that a peak may take before it is likely too large: blocks of memory leave gaps."""
WORTH_SAYING = 0.01
"""The share of the peak that an option must save to be named."""
SHOWN = 5
"""Options that are named at most."""


@dataclass(frozen=True, slots=True)
class DeviceFit:
    """What all plugins will hold on one device."""

    memory: DeviceMemory
    uses: Mapping[str, tuple[MemoryUse, ...]]
    """By the plugin's key in the config."""

    def held(self, part: MemoryPart) -> int:
        """Bytes of all plugins' uses in a part that is held in every phase."""
        return sum(use.size_bytes for uses in self.uses.values() for use in uses if use.part == part)

    @property
    def largest_phase(self) -> tuple[str, MemoryPart | None]:
        """Plugin and phase that need most besides what is always held; no phase if none needs anything."""
        sizes: dict[tuple[str, MemoryPart | None], int] = {("", None): 0}
        for key, uses in self.uses.items():
            for use in uses:
                if use.part not in SHARED_PARTS:
                    sizes[key, use.part] = sizes.get((key, use.part), 0) + use.size_bytes
        return max(sizes, key=sizes.__getitem__)

    @property
    def phase_uses(self) -> tuple[MemoryUse, ...]:
        """What is held besides in that phase, the largest first."""
        key, phase = self.largest_phase
        return _largest_first(use for use in self.uses.get(key, ()) if use.part == phase)

    @property
    def peak(self) -> int:
        """Bytes at most."""
        return sum(map(self.held, SHARED_PARTS)) + sum(use.size_bytes for use in self.phase_uses)

    def shared_uses(self, part: MemoryPart) -> tuple[tuple[str, MemoryUse], ...]:
        """Plugins and their uses in a part that is held in every phase, the largest first."""
        found = [(key, use) for key, uses in self.uses.items() for use in uses if use.part == part and use.size_bytes]
        return tuple(sorted(found, key=lambda pair: -pair[1].size_bytes))


def device_fits(reports: Mapping[str, MemoryReport]) -> tuple[DeviceFit, ...]:
    """One for each device that any plugin uses."""
    devices = {memory.device: memory for report in reports.values() for memory in report.devices}
    return tuple(
        DeviceFit(
            memory,
            {key: tuple(use for use in report.uses if use.device == device) for key, report in reports.items()},
        )
        for device, memory in devices.items()
    )


@dataclass(frozen=True, slots=True)
class MemoryCheck:
    """The memory of a run, and what would lower it."""

    plugins: Mapping[str, Plugin]
    contexts: Mapping[str, RunContext]
    """Each plugin's, with the run's plan."""
    reports: Mapping[str, MemoryReport]

    @property
    def fits(self) -> tuple[DeviceFit, ...]:
        """Of each device."""
        return device_fits(self.reports)

    def warnings(self) -> tuple[str, ...]:
        """One for each device whose memory is likely too small, with what would lower it."""
        return tuple(
            f"likely too large for {fit.memory.device} ({fit.memory.label}): {gib(fit.peak)} at the peak, and "
            f"{gib(fit.memory.free_bytes)} of {fit.memory.shown_total} are free. {self.lower(fit)}"
            for fit in self.fits
            if fit.peak > LIKELY * fit.memory.free_bytes
        )

    def lower(self, fit: DeviceFit) -> str:
        """What would lower the peak on a device, in words."""
        return self._lower(fit, "the peak", _peak)

    def lower_weights(self, fit: DeviceFit) -> str:
        """The same where weights alone are too large: what lowers only something else is no way out."""
        return self._lower(fit, "weights and optimizer", _weights)

    def _lower(self, fit: DeviceFit, what: str, size_of: Callable[[DeviceFit], int]) -> str:
        saved = sorted(self._savings(fit, size_of), key=lambda pair: -pair[1])
        worth = [(change, size) for change, size in saved if size > WORTH_SAYING * size_of(fit)][:SHOWN]
        other_ways = "smaller models"
        if len({key for key, _ in fit.shared_uses("weights")}) > 1:
            other_ways += ", or some of them on another device or behind a server"
        if not worth:
            return f"Take {other_ways}, or a larger device"
        listed = ", ".join(f"{change} ({gib(size)} less)" for change, size in worth)
        return f"What lowers {what}, each by itself: {listed}; or {other_ways}"

    def _savings(self, fit: DeviceFit, size_of: Callable[[DeviceFit], int]) -> Iterator[tuple[str, int]]:
        """Changes in words, and by how many bytes each lowers a size of what is on the device."""

        def saved(reports: Mapping[str, MemoryReport]) -> int:
            sizes = (size_of(other) for other in device_fits(reports) if other.memory.device == fit.memory.device)
            return size_of(fit) - next(sizes, 0)

        for key, report in self.reports.items():
            for change in report.savers:
                plugin = self.plugins[key].model_copy(update=dict(change))
                smaller = plugin.memory(self.contexts[key])
                if smaller is not None:
                    yield _in_words(key, change), saved({**self.reports, key: smaller})
        yield from self._shorter(saved)

    def _shorter(self, saved: Callable[[Mapping[str, MemoryReport]], int]) -> Iterator[tuple[str, int]]:
        """The same of completions of half the length."""
        plan = next((context.plan for context in self.contexts.values()), None)
        if plan is not None and plan.new_tokens > 1:
            half = replace(plan, new_tokens=plan.new_tokens // 2)
            contexts = {key: replace(context, plan=half) for key, context in self.contexts.items()}
            change = f"sampling.max_completion_tokens: {half.new_tokens}"
            yield change, saved(_reports(self.plugins, contexts))


def require_memory(
    plugins: Mapping[str, Plugin], contexts: Mapping[str, RunContext], plan: Plan, checked: Mapping[str, CheckReport]
) -> MemoryCheck:
    """Ask every plugin what it will hold; none where a package is missing, since the sum would not be true then.

    Raises:
        InputError: if weights alone take more than a device has, where what it has is a limit.
    """
    planned = {key: replace(context, plan=plan) for key, context in contexts.items()}
    missing = any(report.missing for report in checked.values())
    check = MemoryCheck(plugins, planned, {} if missing else _reports(plugins, planned))
    for fit in check.fits:
        held, memory = fit.held("weights"), fit.memory
        if memory.is_limit and held > memory.total_bytes:
            parts = ", ".join(f"{gib(use.size_bytes)} {use.what} ({key})" for key, use in fit.shared_uses("weights"))
            raise InputError(
                f"this run cannot fit on {memory.device} ({memory.label}, {memory.shown_total}): weights and "
                f"optimizer alone take {gib(held)}: {parts}. {check.lower_weights(fit)}"
            )
    return check


def _peak(fit: DeviceFit) -> int:
    return fit.peak


def _weights(fit: DeviceFit) -> int:
    return fit.held("weights")


def _reports(plugins: Mapping[str, Plugin], contexts: Mapping[str, RunContext]) -> dict[str, MemoryReport]:
    found: dict[str, MemoryReport] = {}
    for key, plugin in plugins.items():
        report = returned(plugin, "memory", (MemoryReport, NoneType), partial(plugin.memory, contexts[key]))
        if report is not None:
            found[key] = report
    return found


def _largest_first(uses: Iterator[MemoryUse]) -> tuple[MemoryUse, ...]:
    return tuple(sorted((use for use in uses if use.size_bytes), key=lambda use: -use.size_bytes))


def _in_words(key: str, change: Mapping[str, JsonValue]) -> str:
    return " and ".join(f"{key}.{name}: {str(value).lower()}" for name, value in change.items())
