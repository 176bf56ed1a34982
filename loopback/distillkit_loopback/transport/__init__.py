"""What the loopback services of `http` and `fireworks` share: HTTP on this machine, faults on command. No plugin."""
