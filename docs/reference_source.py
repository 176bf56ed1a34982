"""What stands in the source of classes and functions: fields with their docstrings, signatures, and prose."""

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import distillkit

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Field:
    """A field of a class, as its source has it."""

    name: str
    kind: str
    """Its type."""
    default: str
    meaning: str
    """The docstring below it."""
    is_class_variable: bool

    @classmethod
    def of(cls, node: ast.AnnAssign, meaning: str) -> "Field":
        """The field that a statement defines; of an option the meaning is its description."""
        kind, default = ast.unparse(node.annotation), "required" if node.value is None else ast.unparse(node.value)
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "Field":
            default = ast.unparse(node.value.args[0])
            meaning = next(
                str(ast.literal_eval(each.value)) for each in node.value.keywords if each.arg == "description"
            )
        elif default.startswith("field("):
            default = "{}" if "FrozenDict" in default else "required"
        of_class = kind.startswith("ClassVar[")
        kind = kind.removeprefix("ClassVar[").removesuffix("]") if of_class else kind
        return cls(ast.unparse(node.target), kind, default, " ".join(meaning.split()), of_class)


def fields(node: ast.ClassDef) -> Iterator[Field]:
    """The public annotated names of a class's body, each with the docstring below it."""
    for index, each in enumerate(node.body):
        if isinstance(each, ast.AnnAssign) and not ast.unparse(each.target).startswith("_"):
            yield Field.of(each, below(node.body, index))


def functions(node: ast.ClassDef) -> Iterator[Function]:
    """The public methods and properties of a class's body, and a constructor with arguments of its own."""
    is_error = any(ast.unparse(base).endswith("Error") for base in node.bases)
    for each in node.body:
        named = isinstance(each, Function)
        if named and (not each.name.startswith(("_", "model_")) or (is_error and each.name == "__init__")):
            yield each


def signature(node: Function) -> str:
    """How a function is called; a property like a field."""
    returns = "" if node.returns is None else ast.unparse(node.returns).replace("'", "")
    if any(ast.unparse(each) == "property" for each in node.decorator_list):
        return f"{node.name}: {returns}"
    arguments = re.sub(r"^(self|cls)(, |$)", "", ast.unparse(node.args)).replace("=", " = ")
    arguments = re.sub(r": '([^']+)'", r": \1", arguments)
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{prefix}{node.name}({arguments}) -> {returns}"


def definition(thing: type | str, package: ModuleType = distillkit) -> ast.stmt:
    """The statement that defines a class, or what `package` gives by a name. Raises LookupError without one."""
    name = thing if isinstance(thing, str) else thing.__name__
    module = home(package)[name] if isinstance(thing, str) else thing.__module__
    body = parsed(module).body
    for index, node in enumerate(body):
        if getattr(node, "name", None) == name:
            return node
        if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
            node.below = below(body, index)  # type: ignore[attr-defined]
            return node
    raise LookupError(f"{module} does not define {name}")


def class_definition(cls: type) -> ast.ClassDef:
    """The statement that defines a class."""
    node = definition(cls)
    assert isinstance(node, ast.ClassDef)  # noqa: S101
    return node


def below(body: list[ast.stmt], index: int) -> str:
    """The docstring of an assignment: the text in the statement after it, or nothing."""
    after = body[index + 1] if index + 1 < len(body) else None
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
        return inspect.cleandoc(after.value.value)
    return ""


def docstring(node: ast.stmt) -> str:
    """What stands in a class or function, or below an assignment."""
    if isinstance(node, ast.ClassDef | Function):
        return prose(ast.get_docstring(node) or "")
    return str(getattr(node, "below", ""))


def prose(text: str) -> str:
    """A docstring whose `Args:` and `Raises:` are lists, and nothing else is indented."""
    lines: list[str] = []
    for line in text.splitlines():
        if line in ("Args:", "Returns:", "Raises:"):
            lines += [line, ""]
        elif (found := re.match(r" {4}(\w+): (.*)", line)) is not None:
            lines.append(f"- `{found[1]}`: {found[2]}")
        else:
            lines.append(re.sub(r"^ {4,}", "  ", line))
    return "\n".join(lines)


def joined(lines: list[str]) -> str:
    """A page: no two empty lines together, and one end of line at its end."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


@lru_cache
def home(package: ModuleType) -> Mapping[str, str]:
    """Name to the module that a package has it from."""
    return {
        alias.asname or alias.name: str(node.module)
        for node in parsed(package.__name__).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@lru_cache
def parsed(module: str) -> ast.Module:
    """A module's source."""
    return ast.parse(inspect.getsource(sys.modules[module]))


def clean(thing: object) -> str:
    """The docstring of a class or module that is there."""
    return prose(inspect.getdoc(thing) or "")
