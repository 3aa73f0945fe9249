//! The whole system, from outside: real processes, real scripts, the real command line.

mod gates;
