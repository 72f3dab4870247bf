//! The txn log, snapshots and epoch files, in the formats of Apache ZooKeeper.
