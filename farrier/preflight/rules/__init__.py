"""The rules, one module per area: each function looks at one host and yields what is wrong."""
