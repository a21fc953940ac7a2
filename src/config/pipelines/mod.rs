//! Pipeline files.
mod tree;
