//! The shell of a member: sockets, the log thread, the driver.
