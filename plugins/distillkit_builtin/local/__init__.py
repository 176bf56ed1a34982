"""The local backend: student and teachers in this process, on PyTorch, transformers and PEFT."""
