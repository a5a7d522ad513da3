//! What a scenario means, and what is said of one with mistakes.
