//! The replicated state: znodes, sessions and the txns that change them.
