"""What each subcommand of the command line does; a module is imported only when its command is called."""
