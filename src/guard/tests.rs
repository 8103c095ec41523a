//! Wills on a real disk.
