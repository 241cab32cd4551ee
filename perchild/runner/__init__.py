"""The runner: RUNS AS THE IDENTITY and executes its programs; nothing else does."""
