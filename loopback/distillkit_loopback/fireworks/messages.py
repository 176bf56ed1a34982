"""Calls and routes of this service, whose requests may have its faults."""

from typing import TypeAlias

from distillkit_loopback.fireworks.faults import Fault
from distillkit_loopback.transport import routes

Call: TypeAlias = routes.Call[Fault]
Route: TypeAlias = routes.Route[Fault]
