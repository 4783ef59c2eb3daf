//! Holdfast's shell.
