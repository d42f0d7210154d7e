"""The subcommands of ``axolotl sftkey``, one module each; imported only when used."""
