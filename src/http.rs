//! HTTP answers from the view.
