"""What samplers share whose servers are given the student's weights at each sync: vLLM, SGLang. Not a plugin."""
