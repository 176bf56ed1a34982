"""The key of a service, held so that nothing shows it."""

import os
from dataclasses import dataclass

from pydantic import SecretStr

from distillkit.errors import InputError
from distillkit.files.redaction import keep_secret


@dataclass(frozen=True, slots=True)
class Key:
    """A key, or none. Its repr shows neither."""

    variable: str | None
    _value: SecretStr

    @classmethod
    def read(cls, variable: str | None) -> "Key":
        """The key in an environment variable. Raise InputError if it is not set, or cannot stand in a header."""
        if variable is None:
            return cls(None, SecretStr(""))
        value = SecretStr(os.environ.get(variable, "").strip())
        if not value.get_secret_value():
            raise InputError(f"api_key_env: the environment variable {variable} is not set; export the service's key")
        keep_secret(variable)
        if not all("!" <= character <= "~" for character in value.get_secret_value()):
            raise InputError(f"api_key_env: {variable} holds white space or a character that no key has")
        return cls(variable, value)

    def headers(self) -> dict[str, str]:
        """The header that authorizes a request; none without a key."""
        return {} if self.variable is None else {"Authorization": f"Bearer {self._value.get_secret_value()}"}

    def reveal(self) -> str:
        """The key itself, for an SDK that takes it as an argument; empty without a key."""
        return self._value.get_secret_value()

    def redacted(self, text: str) -> str:
        """`text` without the key: some services repeat it when they refuse it."""
        value = self._value.get_secret_value()
        return text.replace(value, "***") if value else text
