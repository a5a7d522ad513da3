//! A load balancer whose every backend choice is made by a sandboxed WebAssembly component.

pub mod config;
