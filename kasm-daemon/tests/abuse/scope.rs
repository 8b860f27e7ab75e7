//! Limits and scopes, by their numbers.
