"""A distribution with plugins for distillkit."""
