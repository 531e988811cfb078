"""The proof that generated hardware equals the emulator: stimuli, simulators, verdicts."""
