"""Why a field that a request leaves out changes no number: what several dialects' tables say."""

from collections.abc import Mapping

from pydantic import JsonValue

Fields = Mapping[str, JsonValue]

NO_DEFAULT = "null or empty where it is left out, and no setting of the server's fills it in"
NOT_THE_NUMBERS = "changes when or how the response comes, not which tokens and logprobs are in it"
NOT_OURS = "of other inputs or outputs than token ids and logprobs"
