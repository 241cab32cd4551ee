"""The dispatcher: forks, supervises, hands out descriptors. RUNS AS ROOT; never reads a byte from a client or a tenant's file."""
