"""The roles of messages, and what other formats call them."""

ROLES_OF_MESSAGES = ("system", "developer", "user", "assistant", "tool")
OTHER_NAMES = {
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "function": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
    "ipython": "tool",
    "observation": "tool",
    "tool_response": "tool",
}
"""What other formats call these roles."""
