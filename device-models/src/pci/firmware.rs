//! Address assignment at power-on.
