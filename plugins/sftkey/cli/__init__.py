"""The subcommands of ``sftkey``, one module each; imported only when used."""
