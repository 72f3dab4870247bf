//! Arguments, commands, exit codes, terminal output.
