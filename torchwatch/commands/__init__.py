"""The subcommands of the command line: one per file, loaded by name when it is called."""
