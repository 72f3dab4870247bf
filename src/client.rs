//! The ZooKeeper client that the sidecar and the commands use.
