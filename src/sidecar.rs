//! The pod's agent, put together.
