"""What two processes must agree on: records, tables, messages, pages. Pure."""
