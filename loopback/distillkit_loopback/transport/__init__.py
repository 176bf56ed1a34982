"""What all loopback servers share: HTTP on this machine, faults on command. No plugin."""
