"""Configuration: text -> tokens -> tree -> drafts -> plan, routes, records. Pure, but for load.py, users.py and kept.py."""
