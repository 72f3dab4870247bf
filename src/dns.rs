//! DNS answers from the view.
