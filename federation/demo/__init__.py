"""Three clusters on this machine, all of real processes, and a tour through what federation is for."""
