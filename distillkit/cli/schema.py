"""The JSON schema of config files, with the plugins that are installed here filled in."""

import json
from typing import Any

from distillkit.config.run_config import RunConfig
from distillkit.registry import Registry
from distillkit.roles.by_name import ROLES

Schema = dict[str, Any]


def as_json(registry: Registry) -> str:
    """The JSON Schema of all configs, as indented JSON text."""
    return json.dumps(config_schema(registry), indent=2)


def config_schema(registry: Registry) -> Schema:
    """A config file's schema: what the loader fills in is not required of the file."""
    definitions: Schema = {}
    for role in ROLES:
        definitions[f"role-{role}"] = {"anyOf": [_any_of_role(registry, role, definitions)]}
    schema = _resolve_roles(RunConfig.model_json_schema())
    definitions |= schema.pop("$defs", {})
    schema["required"] = ["data", "student", "teachers"]
    schema["properties"]["data"] = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/DataConfig"}]}
    definitions["TeacherConfig"]["required"] = ["model"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions}


def _any_of_role(registry: Registry, role: str, definitions: Schema) -> Schema:
    options: list[Schema] = [{"enum": registry.names(role)}]
    for info in registry.infos(role):
        plugin = _resolve_roles(info.cls.model_json_schema())
        definitions |= plugin.pop("$defs", {})
        plugin["properties"] = {"name": {"const": info.name}, **plugin.get("properties", {})}
        plugin["required"] = ["name", *plugin.get("required", [])]
        definitions[f"{role}-{info.name}"] = plugin
        options.append({"$ref": f"#/$defs/{role}-{info.name}"})
    return {"anyOf": options}


def _resolve_roles(node: Any) -> Any:  # noqa: ANN401 - any JSON
    """Replace the marks that roles leave by references to what can stand there."""
    if isinstance(node, dict):
        role = node.get("x-distillkit-role")
        if role is not None:
            rest = {key: value for key, value in node.items() if key in ("description", "default")}
            return {"$ref": f"#/$defs/role-{role}", **rest}
        return {key: _resolve_roles(value) for key, value in node.items()}
    return [_resolve_roles(item) for item in node] if isinstance(node, list) else node
