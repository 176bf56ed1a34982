"""The token inspector: where a teacher pushes a student, token by token, from the completions that a run recorded."""
