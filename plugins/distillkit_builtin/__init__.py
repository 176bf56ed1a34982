"""The built-in plugins of distillkit. The engine reaches them through their entry point alone."""
