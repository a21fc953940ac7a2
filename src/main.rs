//! Command line and dispatch, nothing else.

fn main() {}
